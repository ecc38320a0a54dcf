//! The range of a number (option `range`). Errors name it instead of the range of the type.

use outrider_model::Error;
use outrider_proto::{DESCRIPTORS, options::Range};
use prost_reflect::{FieldDescriptor, MessageDescriptor, Value};

use crate::json::{field_path::FieldPath, scalar::WHOLE_NUMBER};

/// Returns the minimum and maximum of a field. 0 is also accepted and means the default.
pub(crate) fn of(field: &FieldDescriptor) -> Option<(i64, i64)> {
    let extension = DESCRIPTORS.get_extension_by_name("outrider.options.v1.range")?;
    let options = field.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let value = options.get_extension(&extension);
    let Value::Message(message) = value.as_ref() else { return None };
    let Range { least, most } = message.transcode_to().ok()?;
    Some((least, most))
}

/// Names the range in the errors of fields that have one.
pub(crate) fn named(input: &MessageDescriptor, mut error: Error) -> Error {
    let mut changed = false;
    for violation in error
        .violations
        .iter_mut()
        .filter(|violation| violation.description.starts_with(WHOLE_NUMBER))
    {
        let field = FieldPath::resolve(input, &violation.field).ok();
        if let Some((least, most)) = field.and_then(|path| of(path.last())) {
            violation.description =
                format!("{WHOLE_NUMBER} from {least} to {most}, or 0 for the default");
            changed = true;
        }
    }
    if changed {
        error = Error {
            reason: error.reason,
            retry_after: error.retry_after,
            ..Error::fields(error.violations)
        };
    }
    error
}

#[cfg(test)]
mod tests {
    use outrider_model::limits;
    use outrider_rpc::methods;

    use super::*;

    #[test]
    fn ranges_are_the_limits_of_the_model() {
        let endpoint = DESCRIPTORS.get_message_by_name("outrider.admin.v1.Endpoint").unwrap();
        let (least, _, most) = limits::MAX_IN_FLIGHT;
        let in_flight = of(&endpoint.get_field_by_name("max_in_flight").unwrap());
        assert_eq!(in_flight, Some((least.into(), most.into())));
        let mut pages = 0;
        for method in
            methods::public_services().flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            if let Some(size) = method.input().get_field_by_name("page_size") {
                assert_eq!(
                    of(&size),
                    Some((1, limits::PAGE_SIZE.1.into())),
                    "{}",
                    size.full_name()
                );
                pages += 1;
            }
        }
        assert!(pages > 5, "{pages} lists");
    }

    #[test]
    fn errors_name_the_range_and_not_the_type() {
        let input =
            DESCRIPTORS.get_message_by_name("outrider.admin.v1.CreateEndpointRequest").unwrap();
        let of = |field: &str| Error::field(field, format!("{WHOLE_NUMBER} from 0 to 4294967295"));
        let named = |field: &str| super::named(&input, of(field)).message.into_owned();
        assert_eq!(
            named("endpoint.max_in_flight"),
            "endpoint.max_in_flight: must be a whole number from 1 to 1024, or 0 for the default"
        );
        assert_eq!(
            named("endpoint.timeout"),
            "endpoint.timeout: must be a whole number from 0 to 4294967295"
        );
        assert_eq!(super::named(&input, Error::not_found("x")), Error::not_found("x"));
    }
}
