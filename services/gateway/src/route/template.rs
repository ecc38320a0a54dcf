//! Path templates of `google.api.http`: `/v1/{a}`, `/v1/{name=projects/*}`, `/v1/things:verb`.

use std::ops::Range;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    /// The custom verb after the last colon, or empty.
    pub(crate) verb: String,
    pub(crate) variables: Vec<Variable>,
}

/// What a segment of a path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// This text.
    Literal(String),
    /// Any text that is not empty: `*`.
    One,
    /// Any number of segments, only at the end: `**`.
    Rest,
}

/// The segments from which a field is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// The path of the field as written, with dots.
    pub(crate) field: String,
    pub(crate) segments: Range<usize>,
    /// Whether the value may have several segments.
    pub(crate) many: bool,
}

/// Why a text is not a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It does not begin with a slash.
    #[error("must begin with '/'")]
    NoSlash,
    /// Its braces do not match, or are nested.
    #[error("has braces that do not match")]
    Braces,
    /// A segment, a name or a verb is empty.
    #[error("has an empty segment, name or verb")]
    Empty,
    /// A wildcard is only a part of its segment.
    #[error("has a wildcard that is not a segment of its own")]
    Wildcard,
    /// `**` is not at the end.
    #[error("has \"**\" before its end")]
    RestNotLast,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (path, verb) = split_verb(text.strip_prefix('/').ok_or(TemplateError::NoSlash)?)?;
        let mut template =
            Self { segments: Vec::new(), verb: verb.to_owned(), variables: Vec::new() };
        for piece in split_outside_braces(path)? {
            match piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) {
                Some(inner) => template.variable(inner)?,
                None => template.segments.push(segment(piece)?),
            }
        }
        let last = template.segments.len() - 1;
        if template.segments[..last].contains(&Segment::Rest) {
            return Err(TemplateError::RestNotLast);
        }
        Ok(template)
    }

    fn variable(&mut self, inner: &str) -> Result<(), TemplateError> {
        let (field, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
        if field.is_empty() {
            return Err(TemplateError::Empty);
        }
        let start = self.segments.len();
        for piece in pattern.split('/') {
            self.segments.push(segment(piece)?);
        }
        let segments = start..self.segments.len();
        let many = segments.len() > 1 || self.segments[start..].contains(&Segment::Rest);
        self.variables.push(Variable { field: field.to_owned(), segments, many });
        Ok(())
    }
}

fn segment(text: &str) -> Result<Segment, TemplateError> {
    match text {
        "" => Err(TemplateError::Empty),
        "*" => Ok(Segment::One),
        "**" => Ok(Segment::Rest),
        _ if text.contains('*') => Err(TemplateError::Wildcard),
        _ if text.contains(['{', '}']) => Err(TemplateError::Braces),
        _ => Ok(Segment::Literal(text.to_owned())),
    }
}

/// The verb follows the last colon after the last slash and the last brace.
fn split_verb(path: &str) -> Result<(&str, &str), TemplateError> {
    let last = path.rfind(['/', '}']).map_or(0, |at| at + 1);
    match path[last..].rfind(':') {
        None => Ok((path, "")),
        Some(at) if path[last + at + 1..].is_empty() => Err(TemplateError::Empty),
        Some(at) => Ok((&path[..last + at], &path[last + at + 1..])),
    }
}

fn split_outside_braces(path: &str) -> Result<Vec<&str>, TemplateError> {
    let (mut pieces, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, byte) in path.bytes().enumerate() {
        match byte {
            b'{' if !inside => inside = true,
            b'}' if inside => inside = false,
            b'{' | b'}' => return Err(TemplateError::Braces),
            b'/' if !inside => {
                pieces.push(&path[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&path[start..]);
    if inside { Err(TemplateError::Braces) } else { Ok(pieces) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.into())
    }

    #[test]
    fn parses_variables_patterns_and_verbs() {
        let template = Template::parse("/v1/{a.b}/x/{name=things/*}:retry").unwrap();
        assert_eq!(
            template.segments,
            [literal("v1"), Segment::One, literal("x"), literal("things"), Segment::One]
        );
        assert_eq!(template.verb, "retry");
        assert_eq!(
            template.variables[0],
            Variable { field: "a.b".into(), segments: 1..2, many: false }
        );
        assert_eq!(
            template.variables[1],
            Variable { field: "name".into(), segments: 3..5, many: true }
        );
        let template = Template::parse("/v1/events:batch").unwrap();
        assert_eq!((template.segments.len(), template.verb.as_str()), (2, "batch"));
        assert!(Template::parse("/v1/{rest=**}").unwrap().variables[0].many);
    }

    #[test]
    fn refuses_what_is_malformed() {
        for (text, why) in [
            ("v1", TemplateError::NoSlash),
            ("/v1/{a", TemplateError::Braces),
            ("/v1/a}", TemplateError::Braces),
            ("/v1/{a{b}}", TemplateError::Braces),
            ("/v1/x{a}", TemplateError::Braces),
            ("/v1//a", TemplateError::Empty),
            ("/v1/{}", TemplateError::Empty),
            ("/v1/a:", TemplateError::Empty),
            ("/v1/a*", TemplateError::Wildcard),
            ("/v1/**/a", TemplateError::RestNotLast),
            ("/v1/{a=**}/b", TemplateError::RestNotLast),
        ] {
            assert_eq!(Template::parse(text), Err(why), "{text}");
        }
    }
}
