//! Conversions of subscriptions.

use outrider_model::{
    EndpointId, EventTypePattern, Noun, ProjectId, Result, Subscription, SubscriptionId,
    SubscriptionSpec, error::Violations, limits,
};
use outrider_proto::admin as wire;
use outrider_rpc::{convert::timestamp, validate};
use outrider_store::NewSubscription;

use crate::{
    fields,
    spec::{Change, Field, changes, read},
};

const FIXED: &[&str] =
    &["subscription_id", "project_id", "endpoint_id", "create_time", "update_time"];

/// Converts a subscription for an answer.
pub fn to_wire(subscription: Subscription) -> wire::Subscription {
    let Noun { meta, spec } = subscription;
    wire::Subscription {
        subscription_id: meta.id.to_string(),
        project_id: meta.fixed.project.to_string(),
        endpoint_id: meta.fixed.endpoint.to_string(),
        event_types: spec.event_types.iter().map(ToString::to_string).collect(),
        create_time: Some(timestamp(meta.created_at)),
        update_time: Some(timestamp(meta.updated_at)),
        name: spec.name,
    }
}

fn settable() -> Vec<Field<'static, wire::Subscription, SubscriptionSpec>> {
    vec![
        Field::new(
            "name",
            |subscription| !subscription.name.is_empty(),
            name,
            |spec| &mut spec.name,
        ),
        Field::new(
            "event_types",
            |subscription| !subscription.event_types.is_empty(),
            event_types,
            |spec| &mut spec.event_types,
        ),
    ]
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
    let spec = read(&mut violations, &settable(), &subscription);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    let value = project.zip(id).zip(endpoint).map(|((project, id), endpoint)| {
        (project, NewSubscription { id, endpoint, spec }, request_id)
    });
    fields::checked(violations, value)
}

/// Reads the changes of an update.
pub fn change(
    request: wire::UpdateSubscriptionRequest,
) -> Result<(ProjectId, SubscriptionId, Change<SubscriptionSpec>)> {
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
    let mask = request.update_mask.as_ref();
    let change = changes(&mut violations, &settable(), &subscription, mask, FIXED);
    fields::checked(violations, project.zip(id).map(|(project, id)| (project, id, change)))
}

fn name(violations: &mut Violations, subscription: &wire::Subscription) -> String {
    violations.check("subscription.name", validate::optional_name(&subscription.name));
    subscription.name.clone()
}

fn event_types(
    violations: &mut Violations,
    subscription: &wire::Subscription,
) -> Vec<EventTypePattern> {
    const FIELD: &str = "subscription.event_types";
    let texts = &subscription.event_types;
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
            new.spec.event_types.iter().map(ToString::to_string).collect::<Vec<_>>(),
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
        assert_eq!(fields(change(prefix_of_another_noun).err().unwrap()), ["subscription_id"]);
    }
}
