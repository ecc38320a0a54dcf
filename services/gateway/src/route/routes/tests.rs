use outrider_proto::{DESCRIPTORS, google::api::CustomHttpPattern};

use super::*;

fn method(name: &str) -> MethodDescriptor {
    let service = DESCRIPTORS.get_service_by_name("outrider.admin.v1.EndpointService").unwrap();
    service.methods().find(|method| method.name() == name).unwrap()
}

fn rule(pattern: Pattern) -> HttpRule {
    HttpRule { pattern: Some(pattern), ..Default::default() }
}

fn put(template: &str) -> HttpRule {
    rule(Pattern::Put(template.into()))
}

fn added(rule: &HttpRule) -> Result<Routes, RouteError> {
    let mut routes = Routes::default();
    routes.add(&method("UpdateEndpoint"), rule).map(|()| routes)
}

fn texts(routes: &Routes, http_method: &str, path: &str) -> Vec<(String, String)> {
    let found =
        routes.find(http_method, path).unwrap_or_else(|refusal| panic!("{path}: {refusal:?}"));
    found
        .route
        .variables
        .iter()
        .map(|variable| (variable.field.name(), found.text(variable).unwrap()))
        .collect()
}

#[test]
fn variables_take_nested_fields_and_several_segments() {
    let routes = added(&put("/v1/{endpoint.http.url=things/*}/{project_id}:go")).unwrap();
    let expected = [("endpoint.http.url", "things/a%2Fb c"), ("project_id", "p/1")];
    let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(texts(&routes, "PUT", "/v1/things/a%2Fb%20c/p%2F1:go"), expected);
    assert!(routes.find("PUT", "/v1/others/a/p:go").is_err());
    assert!(routes.find("PUT", "/v1/things/a/p").is_err());

    let routes = added(&put("/v1/{projectId=files/**}")).unwrap();
    for (path, text) in [("/v1/files/a/b", "files/a/b"), ("/v1/files", "files")] {
        assert_eq!(texts(&routes, "PUT", path), [("project_id".to_owned(), text.to_owned())]);
    }
}

#[test]
fn an_id_may_hold_a_colon_unless_a_verb_is_known() {
    let mut routes = added(&put("/v1/{project_id}")).unwrap();
    assert_eq!(texts(&routes, "PUT", "/v1/a:b")[0].1, "a:b");
    assert_eq!(texts(&routes, "PUT", "/v1/a%3Ab")[0].1, "a:b");
    let verb = HttpRule {
        pattern: Some(Pattern::Post("/v1/{project_id}:b".into())),
        ..Default::default()
    };
    routes.add(&method("UpdateEndpoint"), &verb).unwrap();
    let refusal = routes.find("PUT", "/v1/a:b").unwrap_err();
    assert_eq!(refusal.allow.as_deref(), Some("POST"));
}

#[test]
fn the_colon_of_a_verb_may_be_encoded() {
    let verb = HttpRule {
        pattern: Some(Pattern::Post("/v1/{project_id}:retryAll".into())),
        ..Default::default()
    };
    let routes = added(&verb).unwrap();
    for (path, id) in [
        ("/v1/a:retryAll", "a"),
        ("/v1/a%3AretryAll", "a"),
        ("/v1/a%3aretry%41ll", "a"),
        ("/v1/a:b%3AretryAll", "a:b"),
        ("/v1/a%3Ab:retryAll", "a:b"),
        ("/v1/%3A%3AretryAll", ":"),
    ] {
        assert_eq!(
            texts(&routes, "POST", path),
            [("project_id".to_owned(), id.to_owned())],
            "{path}"
        );
    }
    for path in [
        "/v1/a%3",
        "/v1/a%3A",
        "/v1/a%3Aretry",
        "/v1/a%253AretryAll",
        "/v1/a%3AretryAll%zz",
        "/v1/%3A",
    ] {
        assert!(routes.find("POST", path).is_err(), "{path}");
    }
}

#[test]
fn custom_methods_are_routes() {
    let custom = CustomHttpPattern { kind: "PURGE".into(), path: "/v1/x".into() };
    let routes = added(&rule(Pattern::Custom(custom))).unwrap();
    assert!(routes.find("PURGE", "/v1/x").is_ok());
    assert_eq!(routes.list().collect::<Vec<_>>(), [("PURGE", "/v1/x")]);
}

#[test]
fn conflicts_are_found_at_start() {
    let mut routes = added(&put("/v1/{project_id}/x")).unwrap();
    let error = routes.add(&method("GetEndpoint"), &put("/v1/{endpoint_id}/x")).unwrap_err();
    let service = "/outrider.admin.v1.EndpointService";
    let text = format!(
        "{service}/GetEndpoint and {service}/UpdateEndpoint both claim PUT /v1/{{endpoint_id}}/x"
    );
    assert_eq!(error.to_string(), text);
}

#[test]
fn faults_of_annotations_are_found_at_start() {
    for (rule, part) in [
        (put("v1"), "must begin with '/'"),
        (put("/v1/{nothing}"), "\"nothing\" names no field"),
        (put("/v1/{endpoint}"), "is not a single value"),
        (put("/v1/{endpoint.headers}"), "is not a single value"),
        (put("/v1/{project_id.x}"), "names a field of something that is not an object"),
        (put("/v1/{endpoint.timeout.seconds}"), "names a field of something that is not an object"),
        (put("/v1/{project_id}/{project_id}"), "is not a single value"),
        (HttpRule { body: "nothing".into(), ..put("/v1") }, "\"nothing\" names no field"),
        (HttpRule { response_body: "nothing".into(), ..put("/v1") }, "\"nothing\" names no field"),
        (HttpRule::default(), "has no path"),
    ] {
        let error = added(&rule).expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
    }
}
