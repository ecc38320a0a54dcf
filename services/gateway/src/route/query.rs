//! Query parameters as fields.

use outrider_model::{Error, FieldViolation, Reason};
use outrider_rpc::bounds;
use prost_reflect::{DynamicMessage, Value};

use crate::{
    json::{
        field_path::{FieldPath, FieldPathError},
        scalar,
    },
    route::{Route, percent},
};

/// The client chooses the names of parameters, and they may have any length.
const SHOWN_NAME_CHARACTERS: usize = 64;

/// Sets the fields that a query names. The query must not name a field that the path or the body
/// gives, nor a singular field twice.
pub(crate) fn apply(route: &Route, query: &str, message: &mut DynamicMessage) -> Result<(), Error> {
    let mut given: Vec<FieldPath> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent::decode_query(name)
            .ok_or_else(|| malformed("the query", "is not percent-encoded UTF-8"))?;
        let value = percent::decode_query(value)
            .ok_or_else(|| malformed(&name, "is not percent-encoded UTF-8"))?;
        let path = resolve(route, &name)?;
        let field = path.last();
        if !field.is_list() && given.iter().any(|other| other.same(&path)) {
            return Err(malformed(&name, "is given twice"));
        }
        let value = scalar::from_query(&field.kind(), &value)
            .map_err(|expected| Error::field(path.name(), expected))?;
        set(&path, value, message)?;
        given.push(path);
    }
    Ok(())
}

fn resolve(route: &Route, name: &str) -> Result<FieldPath, Error> {
    let path = FieldPath::resolve(&route.input, name).map_err(|why| match why {
        FieldPathError::Unknown => malformed(name, "is not a known query parameter"),
        other => malformed(name, &other.to_string()),
    })?;
    if path.is_secret() {
        return Err(malformed(
            name,
            "is a secret, which must be given in the body and never in a query",
        ));
    }
    if route.variables.iter().any(|variable| variable.field.same(&path)) {
        return Err(malformed(name, "is given by the path"));
    }
    if route.body.takes(path.first()) {
        return Err(malformed(name, "must be given in the body"));
    }
    Ok(path)
}

fn set(path: &FieldPath, value: Value, message: &mut DynamicMessage) -> Result<(), Error> {
    let entry = path.entry(message).ok_or_else(|| Error::internal("a field path leads nowhere"))?;
    match entry {
        Value::List(values) => {
            let most = bounds::max_items(path.last());
            if values.len() >= most as usize {
                return Err(Error::field(path.name(), bounds::too_many(most)));
            }
            values.push(value);
        }
        single => *single = value,
    }
    Ok(())
}

fn malformed(name: &str, description: &str) -> Error {
    let field = name.chars().take(SHOWN_NAME_CHARACTERS).collect();
    Error {
        reason: Reason::MalformedRequest,
        ..Error::fields(vec![FieldViolation { field, description: description.into() }])
    }
}
