//! Checks the document against the protos that it is built from, and with an OpenAPI validator.

use std::{env, io::Write, process::Command};

use outrider_model::Reason;
use outrider_proto::DESCRIPTORS;

use super::*;

fn methods() -> Vec<MethodDescriptor> {
    methods::public_services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn made() -> Value {
    let methods = methods();
    document(&Routes::of(&DESCRIPTORS, &methods).unwrap(), &methods, "1.2.3")
}

fn operations(document: &Value) -> Vec<&Value> {
    document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .collect()
}

#[test]
fn every_public_unary_method_is_an_operation_with_its_scope() {
    let document = made();
    let operations = operations(&document);
    let mut ids = operations
        .iter()
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect::<Vec<_>>();
    for method in methods()
        .iter()
        .filter(|method| !method.is_client_streaming() && !method.is_server_streaming())
    {
        let id = format!("{}_{}", method.parent_service().name(), method.name());
        let operation = operations.iter().find(|operation| operation["operationId"] == id.as_str());
        let operation = operation.unwrap_or_else(|| panic!("{id} is missing"));
        let scope = methods::required_scope(&methods::path(method)).unwrap().to_string();
        assert_eq!(operation["security"][0][SECURITY][0], scope.as_str(), "{id}");
        for text in ["summary", "description"] {
            assert!(!operation[text].as_str().unwrap().is_empty(), "{id} has no {text}");
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an operationId is there twice");
    assert!(ids.contains(&"DeliveryService_ListDeliveryAttempts_2"));
}

#[test]
fn everything_is_described() {
    let document = made();
    let schemas = &document["components"]["schemas"];
    let described =
        |schema: &Value| schema["description"].as_str().is_some_and(|text| !text.is_empty());
    let mut count = 0;
    for (name, schema) in schemas.as_object().unwrap() {
        assert!(described(schema), "{name} has no description");
        for (property, schema) in schema["properties"].as_object().into_iter().flatten() {
            let own = schema["$ref"]
                .as_str()
                .and_then(|path| document.pointer(&path[1..]))
                .is_some_and(described);
            assert!(described(schema) || own, "{name}.{property} has no description");
            count += 1;
        }
    }
    assert!(count > 80, "{count} properties");
    for operation in operations(&document) {
        for parameter in operation["parameters"].as_array().unwrap() {
            assert!(
                parameter.get("$ref").is_some() || described(parameter),
                "{parameter} in {}",
                operation["operationId"]
            );
        }
    }
}

#[test]
fn names_of_messages_and_enums_do_not_clash() {
    let public = |package: &str| !package.starts_with("google.") && !package.contains(".internal.");
    let messages = DESCRIPTORS
        .all_messages()
        .filter(|message| public(message.package_name()) && !message.is_map_entry());
    let mut names =
        messages.map(|message| super::super::schema::name(&message)).collect::<Vec<_>>();
    names.extend(
        DESCRIPTORS
            .all_enums()
            .filter(|names| public(names.package_name()))
            .map(|names| names.name().to_owned()),
    );
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn references_lead_somewhere() {
    fn check(document: &Value, value: &Value) -> usize {
        let own = value.get("$ref").map_or(0, |path| {
            let path = path.as_str().unwrap();
            assert!(document.pointer(&path[1..]).is_some(), "{path}");
            1
        });
        let inner: usize = match value {
            Value::Array(items) => items.iter().map(|item| check(document, item)).sum(),
            Value::Object(members) => members.values().map(|member| check(document, member)).sum(),
            _ => 0,
        };
        own + inner
    }
    let document = made();
    assert!(check(&document, &document) > 100);
}

#[test]
fn kinds_have_the_shape_that_json_has() {
    let document = made();
    let schemas = &document["components"]["schemas"];
    let event = &schemas["NewEvent"];
    assert!(event["properties"].get("payload").is_none());
    assert!(event["properties"]["data"].get("type").is_none(), "any JSON value");
    assert_eq!(event["properties"]["data_base64"]["contentEncoding"], "base64");
    assert_eq!(event["not"]["anyOf"][0]["required"], json!(["data", "data_base64"]));
    assert_eq!(event["properties"]["deliver_at"]["format"], "date-time");
    assert_eq!(event["properties"]["headers"]["additionalProperties"]["type"], "string");
    assert_eq!(schemas["DeliveryAttempt"]["properties"]["duration"]["format"], "google-duration");
    assert_eq!(schemas["DeliveryStatus"]["enum"][3], "DELIVERY_STATUS_FAILED");
    assert_eq!(schemas["Endpoint"]["properties"]["create_time"]["readOnly"], true);
    let result = &schemas["BatchPublishEventsResult"];
    assert_eq!(result["properties"]["error"]["$ref"], "#/components/schemas/Error");
    assert_eq!(result["not"]["anyOf"][0]["required"], json!(["accepted", "error"]));
    assert!(schemas["EventType"]["properties"]["schema"].get("type").is_none(), "any JSON value");
    let reasons = schemas["ErrorReason"]["enum"].as_array().unwrap();
    assert!(Reason::ALL.iter().all(|reason| reasons.iter().any(|name| name == reason.as_str())));
    assert_eq!(Schemas::default().kind(&prost_reflect::Kind::Int64)["type"], "string");
}

#[test]
fn parameters_come_from_path_query_and_headers() {
    let document = made();
    let named = |operation: &Value, place: &str| -> Vec<String> {
        let parameters = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|parameter| parameter["in"] == place);
        parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
    };
    let list = &document["paths"]["/v1/projects/{project_id}/deliveries"]["get"];
    assert_eq!(named(list, "path"), ["project_id"]);
    let query = [
        "page_size",
        "page_token",
        "event_id",
        "event_type",
        "endpoint_id",
        "status",
        "start_time",
        "end_time",
    ];
    assert_eq!(named(list, "query"), query);
    assert!(list.get("requestBody").is_none() && list["responses"].get("409").is_none());
    let publish = &document["paths"]["/v1/projects/{project_id}/events"]["post"];
    assert_eq!(
        (named(publish, "header"), named(publish, "query")),
        (vec!["idempotency-key".to_owned()], vec![])
    );
    let body = &publish["requestBody"]["content"]["application/json"];
    assert_eq!(body["schema"]["$ref"], "#/components/schemas/NewEvent");
    assert_eq!(publish["responses"]["429"]["$ref"], "#/components/responses/Error429");
    let update = &document["paths"]["/v1/projects/{project_id}/endpoints/{endpoint_id}"]["patch"];
    assert_eq!(named(update, "query"), ["update_mask"]);
    let retry =
        &document["paths"]["/v1/projects/{project_id}/deliveries/{delivery_id}:retry"]["post"];
    assert_eq!(retry["requestBody"]["required"], false);
    assert_eq!(
        retry["responses"]["200"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/Delivery"
    );
}

/// Uses the PyPI package openapi-spec-validator in the Python that the environment names.
#[test]
fn a_validator_finds_nothing_wrong() {
    let Some(python) = env::var_os("OUTRIDER_TEST_PYTHON") else {
        assert!(env::var_os("OUTRIDER_TEST_STRICT").is_none(), "OUTRIDER_TEST_PYTHON is not set");
        eprintln!("SKIPPED: OUTRIDER_TEST_PYTHON names no Python with openapi-spec-validator");
        return;
    };
    let mut file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    file.write_all(&serde_json::to_vec(&made()).unwrap()).unwrap();
    let output = Command::new(python)
        .args(["-m", "openapi_spec_validator"])
        .arg(file.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn lines_are_a_second_media_type_of_those_that_take_them() {
    let document = made();
    let batch = &document["paths"]["/v1/projects/{project_id}/events:batch"]["post"];
    for content in [&batch["requestBody"]["content"], &batch["responses"]["200"]["content"]] {
        assert_eq!(content["application/x-ndjson"]["schema"]["type"], "string", "{batch}");
    }
    let single = &document["paths"]["/v1/projects/{project_id}/events"]["post"];
    assert!(single["requestBody"]["content"].get("application/x-ndjson").is_none());
}
