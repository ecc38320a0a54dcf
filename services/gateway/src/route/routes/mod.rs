//! The REST routes of the public methods, from their `google.api.http` annotations.

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    ops::Range,
    sync::Arc,
};

use outrider_model::{Error, Reason, Scope};
use outrider_proto::google::api::{HttpRule, http_rule::Pattern};
use outrider_rpc::methods;
use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, MethodDescriptor, Value};

use crate::{
    exchange::{answer::Refusal, meter::Meter},
    json::{
        field_path::{FieldPath, FieldPathError},
        mask,
    },
    route::{
        header_field::HeaderField,
        lines_rule::LinesRule,
        percent,
        stream_rule::StreamRule,
        template::{Segment, Template, TemplateError},
        trie::Trie,
    },
};

/// Why the protos give no valid routes: a fault in the protos.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// An annotation cannot be read.
    #[error("{method}: the google.api.http annotation cannot be decoded or has no path")]
    Annotation {
        /// The method's gRPC path.
        method: String,
    },
    /// A path template is malformed.
    #[error("{method}: the template \"{template}\" {why}")]
    Template {
        /// The method's gRPC path.
        method: String,
        /// The template.
        template: String,
        /// What is wrong.
        why: TemplateError,
    },
    /// A field does not exist or cannot be used there.
    #[error("{method}: \"{field}\" {why}")]
    Field {
        /// The method's gRPC path.
        method: String,
        /// The field's path.
        field: String,
        /// What is wrong.
        why: FieldPathError,
    },
    /// Two methods claim the same requests.
    #[error("{method} and {other} both claim {http_method} {template}")]
    Conflict {
        /// The gRPC path of the later method.
        method: String,
        /// The gRPC path of the earlier method.
        other: String,
        /// The HTTP method.
        http_method: String,
        /// The template of the later method.
        template: String,
    },
}

/// A route to a method.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) http_method: String,
    pub(crate) template: String,
    pub(crate) meter: Arc<Meter>,
    pub(crate) grpc_path: String,
    pub(crate) package: String,
    /// The scope that the caller's key must have.
    pub(crate) scope: Option<Scope>,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
    pub(crate) variables: Vec<Variable>,
    pub(crate) body: BodyRule,
    /// The field of the answer that is written. `None` for the whole answer.
    pub(crate) response_body: Option<FieldDescriptor>,
    /// The update mask to derive from the body. On PATCH only.
    pub(crate) mask: Option<FieldDescriptor>,
    pub(crate) headers: Vec<HeaderField>,
    /// How the route takes lines, if it does.
    pub(crate) ndjson: Option<LinesRule>,
    /// How a server stream is answered, if the method has one.
    pub(crate) stream: Option<StreamRule>,
}

/// A field that the path gives.
#[derive(Debug)]
pub(crate) struct Variable {
    pub(crate) field: FieldPath,
    segments: Range<usize>,
    many: bool,
    rest: bool,
}

/// What the body of a request is.
#[derive(Debug, Clone)]
pub(crate) enum BodyRule {
    /// There is no body.
    None,
    /// The message, without the fields that the path gives.
    Whole,
    /// One field.
    Field(FieldDescriptor),
}

impl BodyRule {
    /// Returns whether the body gives a field.
    pub(crate) fn takes(&self, field: &FieldDescriptor) -> bool {
        match self {
            Self::None => false,
            Self::Whole => true,
            Self::Field(body) => body == field,
        }
    }
}

/// All routes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    trie: Trie,
}

/// A route, and the segments of the path that led to it.
#[derive(Debug)]
pub(crate) struct Found<'r, 'p> {
    pub(crate) route: &'r Route,
    segments: Vec<&'p str>,
}

impl Routes {
    /// Builds the routes of `methods`. Methods with client streams and methods without an
    /// annotation have none.
    pub(crate) fn of(
        pool: &DescriptorPool,
        methods: &[MethodDescriptor],
    ) -> Result<Self, RouteError> {
        let mut routes = Self::default();
        for method in methods.iter().filter(|method| !method.is_client_streaming()) {
            if let Some(rule) = annotation(pool, method)? {
                routes.add(method, &rule)?;
                for rule in &rule.additional_bindings {
                    routes.add(method, rule)?;
                }
            }
        }
        Ok(routes)
    }

    fn add(&mut self, method: &MethodDescriptor, rule: &HttpRule) -> Result<(), RouteError> {
        let (route, template) = Route::of(method, rule)?;
        self.trie.insert(&template, &route.http_method, self.routes.len()).map_err(|other| {
            RouteError::Conflict {
                method: route.grpc_path.clone(),
                other: self.routes[other].grpc_path.clone(),
                http_method: route.http_method.clone(),
                template: route.template.clone(),
            }
        })?;
        self.routes.push(route);
        Ok(())
    }

    /// Returns all routes. Those of one method have the order of its annotation.
    pub(crate) fn all(&self) -> &[Route] {
        &self.routes
    }

    /// Returns the HTTP method and template of each route, sorted.
    pub(crate) fn list(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut list = self
            .routes
            .iter()
            .map(|route| (route.http_method.as_str(), route.template.as_str()))
            .collect::<Vec<_>>();
        list.sort_unstable_by_key(|(method, template)| (*template, *method));
        list.into_iter()
    }

    /// Finds the route of a request. HEAD is treated as GET, without the body of the answer.
    pub(crate) fn find<'p>(
        &self,
        http_method: &str,
        path: &'p str,
    ) -> Result<Found<'_, 'p>, Refusal> {
        let raw = path.strip_prefix('/').unwrap_or(path).split('/').collect::<Vec<_>>();
        let method = if http_method == "HEAD" { "GET" } else { http_method };
        let mut allowed = BTreeSet::new();
        if let Some((head, verb)) = raw.last().and_then(|last| split_verb(last)) {
            let mut raw = raw.clone();
            raw.pop();
            raw.push(head);
            if let Some(index) = self.trie.find(&decoded(&raw)?, &verb, method, &mut allowed) {
                return Ok(Found { route: &self.routes[index], segments: raw });
            }
        }
        // If the verb is known, the path is never read as an id with a colon.
        if allowed.is_empty()
            && let Some(index) = self.trie.find(&decoded(&raw)?, "", method, &mut allowed)
        {
            return Ok(Found { route: &self.routes[index], segments: raw });
        }
        Err(refusal(allowed))
    }
}

/// Splits a custom verb (AIP-136) off the last segment of a path. Some clients encode the colon, as
/// in `dlv_1%3Aretry`.
fn split_verb(last: &str) -> Option<(&str, Cow<'_, str>)> {
    let encoded = last.rfind("%3A").max(last.rfind("%3a"));
    let (at, length) = last.rfind(':').map(|at| (at, 1)).max(encoded.map(|at| (at, 3)))?;
    let (head, rest) = last.split_at_checked(at)?;
    Some((head, percent::decode(rest.get(length..)?)?))
}

fn decoded<'p>(raw: &[&'p str]) -> Result<Vec<Cow<'p, str>>, Error> {
    let decoded = raw.iter().map(|segment| percent::decode(segment)).collect::<Option<Vec<_>>>();
    decoded.ok_or_else(|| {
        Error::new(Reason::MalformedRequest, "the path is not percent-encoded UTF-8")
    })
}

fn refusal(mut allowed: BTreeSet<&str>) -> Refusal {
    if allowed.is_empty() {
        return Error::new(Reason::UnknownMethod, "no such path").into();
    }
    if allowed.contains("GET") {
        allowed.insert("HEAD");
    }
    let allow = allowed.into_iter().collect::<Vec<_>>().join(", ");
    let error = Error::new(Reason::MethodNotAllowed, format!("the path supports {allow}"));
    Refusal { allow: Some(allow), ..error.into() }
}

impl Found<'_, '_> {
    /// Returns the text that the path gives for a variable.
    pub(crate) fn text(&self, variable: &Variable) -> Result<String, Error> {
        let end = if variable.rest { self.segments.len() } else { variable.segments.end };
        let segments = self.segments.get(variable.segments.start..end).unwrap_or_default();
        // A variable that takes the rest of the path is one text, whether or not its slashes are
        // encoded.
        let decode = if variable.many && !variable.rest {
            percent::decode_but_slashes
        } else {
            percent::decode
        };
        let segments = segments.iter().map(|segment| decode(segment)).collect::<Option<Vec<_>>>();
        segments
            .map(|segments| segments.join("/"))
            .ok_or_else(|| Error::field(variable.field.name(), "is not percent-encoded UTF-8"))
    }
}

fn annotation(
    pool: &DescriptorPool,
    method: &MethodDescriptor,
) -> Result<Option<HttpRule>, RouteError> {
    let Some(extension) = pool.get_extension_by_name("google.api.http") else { return Ok(None) };
    let options = method.options();
    if !options.has_extension(&extension) {
        return Ok(None);
    }
    match options.get_extension(&extension).as_ref() {
        Value::Message(message) => message
            .transcode_to()
            .map(Some)
            .map_err(|_| RouteError::Annotation { method: methods::path(method) }),
        _ => Err(RouteError::Annotation { method: methods::path(method) }),
    }
}

impl Route {
    fn of(method: &MethodDescriptor, rule: &HttpRule) -> Result<(Self, Template), RouteError> {
        let grpc_path = methods::path(method);
        let at = |field: &str, why| RouteError::Field {
            method: grpc_path.clone(),
            field: field.to_owned(),
            why,
        };
        let (http_method, text) =
            pattern(rule).ok_or_else(|| RouteError::Annotation { method: grpc_path.clone() })?;
        let template = Template::parse(text).map_err(|why| RouteError::Template {
            method: grpc_path.clone(),
            template: text.to_owned(),
            why,
        })?;
        let (input, output) = (method.input(), method.output());
        let named = |message: &MessageDescriptor, name: &str| {
            message.get_field_by_name(name).ok_or_else(|| at(name, FieldPathError::Unknown))
        };
        let body = match rule.body.as_str() {
            "" => BodyRule::None,
            "*" => BodyRule::Whole,
            name => BodyRule::Field(named(&input, name)?),
        };
        let response_body = Some(rule.response_body.as_str()).filter(|name| !name.is_empty());
        let route = Self {
            meter: Arc::new(Meter::new("rest", &http_method, text, false)),
            template: text.to_owned(),
            package: method.parent_service().package_name().to_owned(),
            scope: methods::required_scope(&grpc_path),
            variables: variables(&input, &template).map_err(|(name, why)| at(&name, why))?,
            body,
            response_body: response_body.map(|name| named(&output, name)).transpose()?,
            mask: Some(&input).filter(|_| http_method == "PATCH").and_then(mask::field_of),
            headers: HeaderField::of(&grpc_path, &input).map_err(|(name, why)| at(name, why))?,
            ndjson: LinesRule::of(method).map_err(|(name, why)| at(&name, why))?,
            stream: method.is_server_streaming().then(|| StreamRule::of(&input, &output)),
            http_method,
            input,
            output,
            grpc_path,
        };
        Ok((route, template))
    }
}

fn pattern(rule: &HttpRule) -> Option<(String, &str)> {
    let (method, path) = match rule.pattern.as_ref()? {
        Pattern::Get(path) => ("GET", path),
        Pattern::Put(path) => ("PUT", path),
        Pattern::Post(path) => ("POST", path),
        Pattern::Delete(path) => ("DELETE", path),
        Pattern::Patch(path) => ("PATCH", path),
        Pattern::Custom(custom) => (custom.kind.as_str(), &custom.path),
    };
    (!method.is_empty()).then(|| (method.to_owned(), path.as_str()))
}

fn variables(
    input: &MessageDescriptor,
    template: &Template,
) -> Result<Vec<Variable>, (String, FieldPathError)> {
    let mut seen = HashSet::new();
    let mut variables = Vec::new();
    for variable in &template.variables {
        let at = |why| (variable.field.clone(), why);
        let field = FieldPath::resolve(input, &variable.field).map_err(at)?;
        if field.is_secret() {
            return Err(at(FieldPathError::Secret));
        }
        // A list cannot come from a path, and a field cannot come from two places.
        if field.last().is_list() || !seen.insert(field.name()) {
            return Err(at(FieldPathError::NotScalar));
        }
        let rest = template.segments[variable.segments.clone()].contains(&Segment::Rest);
        variables.push(Variable {
            field,
            segments: variable.segments.clone(),
            many: variable.many,
            rest,
        });
    }
    Ok(variables)
}
