//! Conversions of subscriptions.

use outrider_model::{
    EndpointId, EventTypePattern, ProjectId, Result, Subscription, SubscriptionId,
    error::Violations, limits,
};
use outrider_proto::admin as wire;
use outrider_rpc::{convert::timestamp, validate};
use outrider_store::{NewSubscription, SubscriptionChange};

use crate::{
    fields,
    mask::{Changes, Mutable},
};

const FIXED: &[&str] =
    &["subscription_id", "project_id", "endpoint_id", "create_time", "update_time"];

/// Converts a subscription for an answer.
pub fn to_wire(subscription: Subscription) -> wire::Subscription {
    wire::Subscription {
        subscription_id: subscription.id.to_string(),
        project_id: subscription.project.to_string(),
        endpoint_id: subscription.endpoint.to_string(),
        name: subscription.name,
        event_types: subscription.event_types.iter().map(ToString::to_string).collect(),
        create_time: Some(timestamp(subscription.created_at)),
        update_time: Some(timestamp(subscription.updated_at)),
    }
}

/// Reads the request to create a subscription.
pub fn create(
    request: &wire::CreateSubscriptionRequest,
) -> Result<(ProjectId, NewSubscription, Option<&str>)> {
    let mut violations = Violations::new();
    let subscription = request.subscription.clone().unwrap_or_default();
    let project = fields::id(&mut violations, "project_id", &request.project_id);
    let id = fields::optional_id(
        &mut violations,
        "subscription.subscription_id",
        &subscription.subscription_id,
    );
    fields::fixed(
        &mut violations,
        "subscription.project_id",
        &subscription.project_id,
        &request.project_id,
    );
    let endpoint: Option<EndpointId> =
        fields::id(&mut violations, "subscription.endpoint_id", &subscription.endpoint_id);
    let name = name(&mut violations, &subscription.name);
    let event_types = event_types(&mut violations, &subscription.event_types);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    let value = project.zip(id).zip(endpoint).map(|((project, id), endpoint)| {
        (project, NewSubscription { id, endpoint, name, event_types }, request_id)
    });
    fields::checked(violations, value)
}

/// Reads the changes of an update.
pub fn change(
    request: wire::UpdateSubscriptionRequest,
) -> Result<(ProjectId, SubscriptionId, SubscriptionChange)> {
    let mut violations = Violations::new();
    let project = fields::id(&mut violations, "project_id", &request.project_id);
    let id = fields::id(&mut violations, "subscription_id", &request.subscription_id);
    let subscription = request.subscription.unwrap_or_default();
    fields::fixed(
        &mut violations,
        "subscription.subscription_id",
        &subscription.subscription_id,
        &request.subscription_id,
    );
    fields::fixed(
        &mut violations,
        "subscription.project_id",
        &subscription.project_id,
        &request.project_id,
    );
    let mutable = [
        Mutable::new("name", !subscription.name.is_empty()),
        Mutable::new("event_types", !subscription.event_types.is_empty()),
    ];
    let changes = Changes::resolve(&mut violations, request.update_mask.as_ref(), &mutable, FIXED);
    let change = SubscriptionChange {
        name: changes.take("name", || name(&mut violations, &subscription.name)),
        event_types: changes
            .take("event_types", || event_types(&mut violations, &subscription.event_types)),
    };
    fields::checked(violations, project.zip(id).map(|(project, id)| (project, id, change)))
}

fn name(violations: &mut Violations, text: &str) -> String {
    violations.check("subscription.name", validate::optional_name(text));
    text.to_owned()
}

fn event_types(violations: &mut Violations, texts: &[String]) -> Vec<EventTypePattern> {
    const FIELD: &str = "subscription.event_types";
    let most = limits::SUBSCRIPTION_EVENT_TYPES;
    if texts.is_empty() || texts.len() > most {
        violations.add(FIELD, format!("must have 1 to {most} entries"));
        return Vec::new();
    }
    texts
        .iter()
        .enumerate()
        .filter_map(|(index, text)| violations.check(format!("{FIELD}[{index}]"), text.parse()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_model::{Error, Timestamp};

    fn request(event_types: &[&str]) -> wire::CreateSubscriptionRequest {
        wire::CreateSubscriptionRequest {
            project_id: ProjectId::new(Timestamp(0), 1).to_string(),
            subscription: Some(wire::Subscription {
                endpoint_id: EndpointId::new(Timestamp(0), 2).to_string(),
                event_types: event_types.iter().map(|text| (*text).to_owned()).collect(),
                ..Default::default()
            }),
            request_id: String::new(),
        }
    }

    fn fields(error: Error) -> Vec<String> {
        error.violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn patterns_keep_their_order_and_texts() {
        let (_, new, _) = create(&request(&["b.*", "a", "*"])).unwrap();
        assert_eq!(
            new.event_types.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["b.*", "a", "*"]
        );
    }

    #[test]
    fn every_wrong_field_is_named() {
        let expected = ["project_id", "subscription.endpoint_id", "subscription.event_types"];
        assert_eq!(fields(create(&Default::default()).unwrap_err()), expected);
        let wrong = request(&["a", "", "b.*", "b*"]);
        assert_eq!(
            fields(create(&wrong).unwrap_err()),
            ["subscription.event_types[1]", "subscription.event_types[3]"]
        );
        assert_eq!(
            fields(create(&request(&["a"; 257])).unwrap_err()),
            ["subscription.event_types"]
        );
        let prefix_of_another_noun = wire::UpdateSubscriptionRequest {
            project_id: request(&[]).project_id,
            subscription_id: request(&[]).project_id,
            ..Default::default()
        };
        assert_eq!(fields(change(prefix_of_another_noun).unwrap_err()), ["subscription_id"]);
    }
}
