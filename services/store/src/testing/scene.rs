//! A [`World`] with an organization, a project and endpoints, for tests of queries.

use std::time::Duration;

use outrider_model::{
    DeliveryId, DeliveryReason, DeliveryStatus, EndpointId, EndpointSpec, EndpointState,
    OrganizationId, PendingDelivery, Principal, SigningSecret, Target, principal::Actor,
};

use super::{
    tenant::new_project,
    world::{SUCCESS, World, attempted, route},
};
use crate::{NewEndpoint, NewEvent};

/// A world with an organization, a project and endpoints, and a principal that reaches them.
pub(crate) struct Scene {
    pub world: World,
    pub principal: Principal,
    pub endpoint: EndpointId,
    /// An endpoint of the owner "acme".
    pub owned: EndpointId,
}

impl Scene {
    pub async fn of(mut world: World) -> Self {
        let organization = world.store.create_organization(Actor::System, "Example").await.unwrap();
        let principal = Principal::system(organization.id);
        let project = world.store.create_project(&principal, new_project("p"), None).await.unwrap();
        world.project = project.id;
        let mut scene = Self {
            world,
            principal,
            endpoint: EndpointId(uuid::Uuid::nil()),
            owned: EndpointId(uuid::Uuid::nil()),
        };
        scene.endpoint = scene.new_endpoint(None, EndpointState::Active).await;
        scene.owned = scene.new_endpoint(Some("acme"), EndpointState::Active).await;
        scene.world.endpoint = scene.endpoint;
        scene
    }

    pub async fn new_endpoint(&self, owner: Option<&str>, state: EndpointState) -> EndpointId {
        let spec = EndpointSpec {
            target: Target::Http { url: "https://example.com/".to_owned() },
            state,
            owner: owner.map(str::to_owned),
            ..EndpointSpec::default()
        };
        let secret = SigningSecret::from_bytes(&[7; 32]).unwrap();
        let new = NewEndpoint { id: None, spec, secret };
        self.world
            .store
            .create_endpoint(&self.principal, self.world.project, new, None)
            .await
            .unwrap()
            .id
    }

    /// A principal that reaches only the endpoints of "acme".
    pub fn owner(&self) -> Principal {
        Principal { owner: Some("acme".to_owned()), ..self.principal.clone() }
    }

    /// A principal that reaches nothing here.
    pub fn outsider(&self) -> Principal {
        Principal {
            organization: OrganizationId::new(self.world.now, 77),
            ..self.principal.clone()
        }
    }

    /// Accepts an event of this age, with a delivery to each of these endpoints.
    pub async fn accept(&self, seconds_ago: u64, endpoints: &[EndpointId]) -> NewEvent {
        let mut new = self.world.event_at(self.world.now.minus(Duration::from_secs(seconds_ago)));
        for endpoint in endpoints {
            route(&mut new, *endpoint, None);
        }
        self.world
            .ledger
            .accept(std::slice::from_ref(&new), self.world.keys_since())
            .await
            .unwrap();
        new
    }

    pub async fn deliver(&self, delivery: &PendingDelivery) -> DeliveryId {
        assert_eq!(
            self.world.ledger.settle(&[attempted(delivery, 1, SUCCESS, 200)]).await.unwrap(),
            [true]
        );
        delivery.id
    }

    pub async fn fail(&self, delivery: &PendingDelivery) -> DeliveryId {
        let verdict =
            outrider_model::Verdict::End(DeliveryStatus::Failed, DeliveryReason::Exhausted);
        assert_eq!(
            self.world.ledger.settle(&[attempted(delivery, 1, verdict, 500)]).await.unwrap(),
            [true]
        );
        delivery.id
    }
}
