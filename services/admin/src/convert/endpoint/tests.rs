use std::collections::HashMap;

use outrider_model::{DeliveryLimits, EndpointFixed, Error, Timestamp};
use prost_types::{Duration as WireDuration, FieldMask};

use super::*;

static STRICT: Policy = Policy {
    allow_loopback: false,
    allowed_ports: Vec::new(),
    allow: Vec::new(),
    deny: Vec::new(),
};
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn http(url: &str) -> Option<wire::endpoint::Target> {
    Some(wire::endpoint::Target::Http(wire::HttpTarget { url: url.to_owned() }))
}

fn minimal() -> wire::Endpoint {
    wire::Endpoint { target: http("https://example.com/hook"), ..Default::default() }
}

fn request(endpoint: wire::Endpoint) -> wire::CreateEndpointRequest {
    let project_id = ProjectId::new(Timestamp(0), 1).to_string();
    wire::CreateEndpointRequest { project_id, endpoint: Some(endpoint), ..Default::default() }
}

fn created(endpoint: wire::Endpoint) -> Result<NewEndpoint> {
    create(&request(endpoint), &STRICT, random).map(|(_, new, _)| new)
}

fn random() -> Result<SigningSecret> {
    Ok(SigningSecret::from_bytes(&[7; 32]).unwrap())
}

/// A stored spec after an update.
fn update(endpoint: wire::Endpoint, paths: &[&str]) -> Result<EndpointSpec> {
    let request = wire::UpdateEndpointRequest {
        project_id: ProjectId::new(Timestamp(0), 1).to_string(),
        endpoint_id: EndpointId::new(Timestamp(0), 2).to_string(),
        endpoint: Some(endpoint),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
    };
    change(request, &STRICT).map(|(_, _, change)| {
        let mut spec = whole().spec;
        change.apply(&mut spec);
        spec
    })
}

fn fields<T>(result: Result<T>) -> Vec<String> {
    let error: Error = result.err().expect("must be refused");
    error.violations.into_iter().map(|violation| violation.field).collect()
}

fn seconds(seconds: i64) -> Option<WireDuration> {
    Some(WireDuration { seconds, nanos: 0 })
}

#[test]
fn absent_fields_get_their_defaults() {
    let new = created(minimal()).unwrap();
    let spec = new.spec;
    assert_eq!(spec.target, Target::Http { url: "https://example.com/hook".to_owned() });
    assert_eq!(
        (spec.state, spec.limits.timeout, spec.limits.max_in_flight),
        (EndpointState::Active, Duration::from_secs(15), 64)
    );
    assert_eq!((new.id, spec.owner, new.secret.expose()), (None, None, [7; 32].as_slice()));
}

#[test]
fn given_fields_are_kept() {
    let id = EndpointId::new(Timestamp(0), 9);
    let endpoint = wire::Endpoint {
        endpoint_id: id.to_string(),
        description: "two\nlines".to_owned(),
        state: wire::EndpointState::Paused.into(),
        timeout: seconds(30),
        max_in_flight: 1_024,
        headers: HashMap::from([("X-A".to_owned(), "1".to_owned())]),
        metadata: HashMap::from([("Team".to_owned(), "é".to_owned())]),
        owner_id: "customer-1".to_owned(),
        ..minimal()
    };
    let given = wire::CreateEndpointRequest {
        secret: SECRET.to_owned(),
        request_id: "r-1".to_owned(),
        ..request(endpoint)
    };
    let (_, new, request_id) = create(&given, &STRICT, || panic!("a secret is given")).unwrap();
    assert_eq!(
        (new.id, new.spec.state, new.spec.limits.timeout),
        (Some(id), EndpointState::Paused, Duration::from_secs(30))
    );
    assert_eq!((new.spec.headers["x-a"].as_str(), new.spec.metadata["Team"].as_str()), ("1", "é"));
    assert_eq!((new.spec.owner.as_deref(), request_id), (Some("customer-1"), Some("r-1")));
    assert_eq!(new.secret.reveal(), SECRET);
}

#[test]
fn fixed_fields_may_be_sent_back_and_not_changed() {
    let other = ProjectId::new(Timestamp(0), 77).to_string();
    let elsewhere = request(wire::Endpoint { project_id: other.clone(), ..minimal() });
    let refused = create(&elsewhere, &STRICT, || panic!("it is refused before")).unwrap_err();
    assert_eq!(refused.violations[0].field, "endpoint.project_id");
    let own = request(wire::Endpoint { project_id: request(minimal()).project_id, ..minimal() });
    assert!(
        create(
            &wire::CreateEndpointRequest { secret: SECRET.to_owned(), ..own },
            &STRICT,
            || panic!("given")
        )
        .is_ok()
    );
    let update = |endpoint_id: &str, project_id: &str| {
        let project = request(minimal()).project_id;
        let id = EndpointId::new(Timestamp(0), 9).to_string();
        let endpoint = wire::Endpoint {
            endpoint_id: if endpoint_id == "same" { id.clone() } else { endpoint_id.to_owned() },
            project_id: if project_id == "same" { project.clone() } else { project_id.to_owned() },
            ..Default::default()
        };
        let request = wire::UpdateEndpointRequest {
            project_id: project,
            endpoint_id: id,
            endpoint: Some(endpoint),
            update_mask: None,
        };
        change(request, &STRICT).map(drop).map_err(|error| error.violations[0].field.clone())
    };
    assert_eq!(update("", ""), Ok(()));
    assert_eq!(update("same", "same"), Ok(()));
    assert_eq!(
        update(&EndpointId::new(Timestamp(0), 10).to_string(), ""),
        Err("endpoint.endpoint_id".to_owned())
    );
    assert_eq!(update("", &other), Err("endpoint.project_id".to_owned()));
}

#[test]
fn a_secret_is_given_in_either_place() {
    let within = wire::Endpoint { secret: Some(SECRET.to_owned()), ..minimal() };
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (beside, faults) in [
        ("", vec![]),
        (SECRET, vec![]),
        (other, vec!["secret"]),
        ("whsec_c2hvcnQ=", vec!["secret"]),
    ] {
        let given =
            wire::CreateEndpointRequest { secret: beside.to_owned(), ..request(within.clone()) };
        match create(&given, &STRICT, || panic!("a secret is given")) {
            Ok((_, new, _)) => {
                assert!(faults.is_empty() && new.secret.reveal() == SECRET, "{beside}")
            }
            Err(error) => assert_eq!(
                error.violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(),
                faults,
                "{beside}"
            ),
        }
    }
    let short = wire::Endpoint { secret: Some("whsec_c2hvcnQ=".to_owned()), ..minimal() };
    let error = create(&request(short), &STRICT, || panic!("a secret is given")).unwrap_err();
    assert_eq!(error.violations[0].field, "endpoint.secret");
    assert!(!error.message.contains("c2hvcnQ"), "{error}");
}

#[test]
fn every_wrong_field_is_named() {
    let endpoint = wire::Endpoint {
        endpoint_id: "ep_1".to_owned(),
        target: http("https://user@example.com"),
        description: "\0".to_owned(),
        state: 3,
        timeout: seconds(31),
        max_in_flight: 1_025,
        headers: HashMap::from([("Host".to_owned(), "a".to_owned())]),
        metadata: HashMap::from([("a".to_owned(), "\0".to_owned())]),
        owner_id: "a b".to_owned(),
        ..Default::default()
    };
    let wrong = wire::CreateEndpointRequest {
        project_id: String::new(),
        endpoint: Some(endpoint),
        request_id: "é".to_owned(),
        secret: "whsec_c2hvcnQ=".to_owned(),
    };
    let expected = [
        "project_id",
        "endpoint.endpoint_id",
        "endpoint.http.url",
        "endpoint.description",
        "endpoint.state",
        "endpoint.timeout",
        "endpoint.max_in_flight",
        r#"endpoint.headers["Host"]"#,
        r#"endpoint.metadata["a"]"#,
        "endpoint.owner_id",
        "secret",
        "request_id",
    ];
    assert_eq!(fields(create(&wrong, &STRICT, random)), expected);
}

#[test]
fn urls_are_checked_by_the_policy() {
    for url in [
        "",
        "ftp://example.com",
        "https://127.0.0.1/",
        "http://localhost/",
        "https://10.0.0.1",
        "https://a:b@example.com/",
    ] {
        assert_eq!(
            fields(created(wire::Endpoint { target: http(url), ..minimal() })),
            ["endpoint.http.url"],
            "{url}"
        );
    }
    assert_eq!(fields(created(wire::Endpoint::default())), ["endpoint.http.url"]);
    let local = request(wire::Endpoint { target: http("http://127.0.0.1:8080/"), ..minimal() });
    assert!(create(&local, &Policy { allow_loopback: true, ..Policy::default() }, random).is_ok());
    let redis = request(wire::Endpoint { target: http("https://example.com:6379/"), ..minimal() });
    let refused = create(&redis, &STRICT, random).unwrap_err();
    assert!(refused.violations[0].description.starts_with("port 6379 is refused"), "{refused:?}");
    assert!(
        create(&redis, &Policy { allowed_ports: vec![6379], ..Policy::default() }, random).is_ok()
    );
}

#[test]
fn the_lists_of_the_installation_apply_when_a_url_is_saved() {
    let entry = |text: &str| text.parse().unwrap();
    let allow = vec![entry("receiver:8000"), entry("10.20.0.0/16"), entry("*.svc.cluster.local")];
    let policy = Policy {
        allow,
        deny: vec![entry("*.bad.example"), entry("10.20.1.0/24")],
        ..Policy::default()
    };
    let saved = |url: &str| {
        let request = request(wire::Endpoint { target: http(url), ..minimal() });
        create(&request, &policy, random).map(drop)
    };
    for url in [
        "http://receiver:8000/x",
        "http://10.20.0.7/",
        "http://hooks.shop.svc.cluster.local/",
        "https://example.com/",
    ] {
        assert!(saved(url).is_ok(), "{url}: {:?}", saved(url).unwrap_err());
    }
    for (url, rule) in [
        ("http://receiver/", "name-single-label"),
        ("http://10.21.0.7/", "ipv4-private"),
        ("https://x.bad.example/", "denied"),
        ("http://10.20.1.7/", "denied"),
    ] {
        let refused = saved(url).unwrap_err();
        assert!(refused.violations[0].description.contains(rule), "{url}: {refused:?}");
    }
}

#[test]
fn a_mask_is_refused_where_a_value_belongs() {
    let mut masked = whole();
    masked.spec.target = Target::Http { url: "https://example.com/hook?key=value".to_owned() };
    masked.spec.headers =
        [("x-a".to_owned(), "1".to_owned()), ("x-b".to_owned(), "2".to_owned())].into();
    let mut sent_back = wire::Endpoint {
        endpoint_id: String::new(),
        project_id: String::new(),
        ..to_wire(masked.masked())
    };
    sent_back.headers.insert("x-c".to_owned(), "new".to_owned());
    let expected =
        ["endpoint.http.url", r#"endpoint.headers["x-a"]"#, r#"endpoint.headers["x-b"]"#];
    assert_eq!(fields(created(sent_back.clone())), expected);
    assert_eq!(fields(update(sent_back.clone(), &[])), expected);
    let error = update(sent_back.clone(), &["headers"]).unwrap_err();
    assert!(
        error.violations.iter().all(|violation| violation.description.contains("is the mask")),
        "{error:?}"
    );
    // A program that encodes URLs sends the mask back like this.
    sent_back.target = http("https://example.com/hook?%e2%80%a6");
    assert_eq!(fields(update(sent_back.clone(), &["target"])), ["endpoint.http.url"]);
    // Fields that the update mask does not name are not checked.
    let kept =
        update(wire::Endpoint { description: "new".to_owned(), ..sent_back }, &["description"])
            .unwrap();
    assert_eq!(kept, EndpointSpec { description: "new".to_owned(), ..whole().spec });
}

#[test]
fn timeouts_are_1_to_30_seconds() {
    for timeout in
        [seconds(0), seconds(-1), seconds(i64::MAX), Some(WireDuration { seconds: 30, nanos: 1 })]
    {
        assert_eq!(
            fields(created(wire::Endpoint { timeout, ..minimal() })),
            ["endpoint.timeout"],
            "{timeout:?}"
        );
    }
    let timeout = Some(WireDuration { seconds: 1, nanos: 500_000_000 });
    assert_eq!(
        created(wire::Endpoint { timeout, ..minimal() }).unwrap().spec.limits.timeout,
        Duration::from_millis(1_500)
    );
}

#[test]
fn the_mask_clears_to_the_default() {
    let cleared = update(
        wire::Endpoint::default(),
        &["state", "timeout", "max_in_flight", "headers", "owner_id"],
    )
    .unwrap();
    let expected = EndpointSpec {
        state: EndpointState::Active,
        limits: DeliveryLimits { timeout: Duration::from_secs(15), max_in_flight: 64 },
        headers: Headers::default(),
        owner: None,
        ..whole().spec
    };
    assert_eq!(cleared, expected);
    assert_eq!(fields(update(wire::Endpoint::default(), &["*"])), ["endpoint.http.url"]);
}

#[test]
fn without_a_mask_set_fields_change() {
    let changed =
        update(wire::Endpoint { description: "new".to_owned(), ..minimal() }, &[]).unwrap();
    let target = Target::Http { url: "https://example.com/hook".to_owned() };
    let expected = EndpointSpec { target, description: "new".to_owned(), ..whole().spec };
    assert_eq!(changed, expected);
    // Fields that the mask does not name are not checked.
    let unread = wire::Endpoint { timeout: seconds(99), ..minimal() };
    assert!(update(unread, &["http"]).is_ok());
}

#[test]
fn masks_name_mutable_fields_only() {
    for path in [
        "endpoint_id",
        "project_id",
        "create_time",
        "update_time",
        "ownerId",
        "headers.x-a",
        "secret",
        "",
    ] {
        assert_eq!(fields(update(minimal(), &["description", path])), ["update_mask"], "{path}");
    }
}

fn whole() -> Endpoint {
    let at = Timestamp(1_700_000_000_000_000);
    let spec = EndpointSpec {
        target: Target::Http { url: "https://example.com/".to_owned() },
        description: "d".to_owned(),
        state: EndpointState::Paused,
        limits: DeliveryLimits { timeout: Duration::from_millis(1_500), max_in_flight: 3 },
        headers: [("x-a".to_owned(), "1".to_owned())].into(),
        metadata: [("m".to_owned(), "2".to_owned())].into(),
        owner: Some("o".to_owned()),
        ..EndpointSpec::default()
    };
    let fixed = EndpointFixed { project: ProjectId::new(at, 2) };
    Endpoint::new(EndpointId::new(at, 1), fixed, spec, at)
}

#[test]
fn an_endpoint_is_converted_to_the_wire() {
    let endpoint = whole();
    let wire = to_wire(endpoint.clone());
    assert_eq!(wire.timeout, Some(WireDuration { seconds: 1, nanos: 500_000_000 }));
    assert_eq!((wire.state(), wire.owner_id.as_str()), (wire::EndpointState::Paused, "o"));
    // The project is that of the request.
    let back = created(wire::Endpoint { project_id: String::new(), ..wire }).unwrap();
    assert_eq!((back.id, back.spec), (Some(endpoint.id), endpoint.spec));
}
