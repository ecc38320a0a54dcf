//! `outrider subscriptions`.

use clap::{Args, Subcommand};
use outrider_proto::admin::{
    CreateSubscriptionRequest, DeleteSubscriptionRequest, GetSubscriptionRequest,
    ListSubscriptionsRequest, Subscription, UpdateSubscriptionRequest,
    subscription_service_client::SubscriptionServiceClient,
};

use super::{
    ClientOptions, Failure,
    connection::{Session, WHOLE},
    input::{Mask, Page},
    output::Column,
};

const COLUMNS: &[Column] = &[
    ("id", "subscription_id"),
    ("endpoint", "endpoint_id"),
    ("event types", "event_types"),
    ("name", "name"),
    ("created", "create_time"),
];

#[derive(Debug, Args)]
pub struct Subscriptions {
    #[command(flatten)]
    pub client: ClientOptions,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists subscriptions, oldest first.
    List {
        #[command(flatten)]
        page: Page,
        /// Only subscriptions of this endpoint.
        #[arg(long, default_value = "", hide_default_value = true)]
        endpoint: String,
    },
    /// Shows a subscription.
    Get { id: String },
    /// Sends events of some types to an endpoint.
    Create {
        /// The endpoint, ep_….
        endpoint: String,
        /// Exact types, PREFIX.* or *.
        #[arg(required = true)]
        event_types: Vec<String>,
        /// The display name.
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
        /// A chosen id, sub_….
        #[arg(long, default_value = "", hide_default_value = true)]
        id: String,
    },
    /// Changes a subscription.
    Update {
        id: String,
        /// The new event types, which replace the current ones; separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "TYPE")]
        event_types: Vec<String>,
        #[arg(long)]
        name: Option<String>,
        /// Fields to clear, such as name; separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "FIELD")]
        clear: Vec<String>,
    },
    /// Deletes a subscription.
    Delete { id: String },
}

pub async fn run(options: Subscriptions) -> Result<(), Failure> {
    let session = Session::open(&options.client).await?;
    let (mut api, output) = (
        SubscriptionServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
        session.output,
    );
    let project_id = session.project()?;
    match options.action {
        Action::List { page, endpoint } => {
            let request = ListSubscriptionsRequest {
                project_id,
                page_size: page.size(),
                page_token: page.page_token,
                endpoint_id: endpoint,
            };
            output.page(api.list_subscriptions(request).await?, COLUMNS)
        }
        Action::Get { id } => {
            let request = GetSubscriptionRequest { project_id, subscription_id: id };
            output.one(
                &api.get_subscription(request).await?.into_inner().subscription.unwrap_or_default(),
            )
        }
        Action::Create { endpoint, event_types, name, id } => {
            let subscription = Subscription {
                subscription_id: id,
                endpoint_id: endpoint,
                event_types,
                name,
                ..Subscription::default()
            };
            let request = CreateSubscriptionRequest {
                project_id,
                subscription: Some(subscription),
                ..Default::default()
            };
            output.one(
                &api.create_subscription(request)
                    .await?
                    .into_inner()
                    .subscription
                    .unwrap_or_default(),
            )
        }
        Action::Update { id, event_types, name, clear } => {
            let mut mask = Mask::clearing(clear);
            let subscription = Some(Subscription {
                event_types: mask.take_all("event_types", event_types),
                name: mask.take("name", name),
                ..Subscription::default()
            });
            let request = UpdateSubscriptionRequest {
                project_id,
                subscription_id: id,
                subscription,
                update_mask: mask.finish()?,
            };
            output.one(
                &api.update_subscription(request)
                    .await?
                    .into_inner()
                    .subscription
                    .unwrap_or_default(),
            )
        }
        Action::Delete { id } => {
            api.delete_subscription(DeleteSubscriptionRequest {
                project_id,
                subscription_id: id.clone(),
            })
            .await?;
            output.done(&format!("deleted {id}"))
        }
    }
}
