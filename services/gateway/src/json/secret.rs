//! Fields that hold secrets (option `secret`). They travel in bodies only, because URLs are kept in
//! histories and in the logs of proxies.

use outrider_proto::DESCRIPTORS;
use prost_reflect::{FieldDescriptor, Value};

/// Returns whether a field holds a secret.
pub(crate) fn is_secret(field: &FieldDescriptor) -> bool {
    let Some(extension) = DESCRIPTORS.get_extension_by_name("outrider.options.v1.secret") else {
        return false;
    };
    field.options().get_extension(&extension).as_ref() == &Value::Bool(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use outrider_rpc::methods;
    use prost_reflect::{Kind, MessageDescriptor};

    use super::*;
    use crate::{json::field_path::FieldPath, openapi, route::Routes};

    /// Visits every field of a message and of the messages in it.
    fn visit(
        message: &MessageDescriptor,
        seen: &mut BTreeSet<String>,
        look: &mut impl FnMut(&FieldDescriptor),
    ) {
        if seen.insert(message.full_name().to_owned()) {
            for field in message.fields() {
                look(&field);
                if let Kind::Message(inner) = field.kind() {
                    visit(&inner, seen, look);
                }
            }
        }
    }

    #[test]
    fn what_is_called_a_secret_is_marked_as_one() {
        const CALLED: [&str; 6] =
            ["secret", "password", "token", "credential", "private_key", "passphrase"];
        let (mut seen, mut marked) = (BTreeSet::new(), 0);
        for method in
            methods::public_services().flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            for message in [method.input(), method.output()] {
                visit(&message, &mut seen, &mut |field| {
                    let is_text = matches!(field.kind(), Kind::String | Kind::Bytes);
                    let is_page = field.name().ends_with("page_token");
                    let called = CALLED.iter().any(|name| field.name().contains(name))
                        && is_text
                        && !is_page;
                    assert_eq!(called, is_secret(field), "{}", field.full_name());
                    marked += usize::from(called);
                });
            }
        }
        assert!(marked >= 4, "{marked} fields are marked");
    }

    #[test]
    fn no_secret_is_bound_to_an_address() {
        let methods = methods::public_services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect::<Vec<_>>();
        let routes = Routes::of(&DESCRIPTORS, &methods).unwrap();
        for route in routes.all() {
            for variable in &route.variables {
                assert!(
                    !variable.field.is_secret(),
                    "{} binds {}",
                    route.template,
                    variable.field.name()
                );
            }
        }
        let document = openapi::document(&routes, &methods, "0");
        let operations = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|path| path.as_object().unwrap().values());
        let parameters =
            operations.filter_map(|operation| operation["parameters"].as_array()).flatten();
        let mut count = 0;
        for parameter in parameters.filter_map(|parameter| parameter["name"].as_str()) {
            assert!(!parameter.contains("secret"), "{parameter}");
            count += 1;
        }
        assert!(count > 50, "{count} parameters");
        let request =
            DESCRIPTORS.get_message_by_name("outrider.admin.v1.CreateEndpointRequest").unwrap();
        assert!(FieldPath::resolve(&request, "endpoint.secret").unwrap().is_secret());
        assert!(!FieldPath::resolve(&request, "endpoint.description").unwrap().is_secret());
    }
}
