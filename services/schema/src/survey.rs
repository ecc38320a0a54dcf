//! Surveys a schema before it is compiled: whether it contains everything it refers to, and whether
//! the number of checks of one value is bounded.
//!
//! A subschema applies in place (`allOf`, `anyOf`, `$ref` …: to the same value) or goes down
//! (`properties`, `items` …: to its members). Going down is bounded by the payload and metered.
//! Applying in place is bounded here.

use std::{collections::HashMap, ptr};

use serde_json::{Map, Value};

use crate::{fault::Fault, metered::TextCost};

/// Maximum nesting of the schema's JSON.
const LEVELS: usize = 64;
/// Maximum number of reachable subschemas.
const SUBSCHEMAS: usize = 1_000;
/// Maximum number of patterns, for values and for names of properties.
const PATTERNS: usize = 100;
/// Maximum length of a chain of subschemas that apply in place of each other.
const CHAIN: u32 = 32;
/// Maximum number of subschemas that are applied to one value.
const ASKED: u64 = 500;
/// Cost of a byte of text for each pattern that it is matched with, in steps.
const PATTERN_COST: u64 = 4;

/// Keywords with a subschema, or a list of subschemas, for the same value.
const IN_PLACE: [&str; 7] = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else"];
/// Keywords with named subschemas for the same value.
const IN_PLACE_NAMED: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords that refer to a subschema for the same value.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Keywords with a subschema, or a list of subschemas, for the members of the value.
const DOWN: [&str; 9] = [
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords with named subschemas for the members of the value.
const DOWN_NAMED: [&str; 2] = ["properties", "patternProperties"];

/// The result of a survey.
#[derive(Debug, PartialEq, Eq)]
pub struct Survey {
    pub text_cost: TextCost,
}

/// Surveys a schema.
///
/// # Errors Returns the first place that exceeds a limit, refers to something outside the schema,
/// or forms a cycle.
pub fn survey(root: &Value) -> Result<Survey, Fault> {
    if !matches!(root, Value::Object(_) | Value::Bool(_)) {
        return Err(Fault::at("", "must be a JSON object, true or false"));
    }
    if levels(root) > LEVELS {
        return Err(Fault::at("", format!("must not be nested deeper than {LEVELS}")));
    }
    let mut walk = Walk {
        root,
        anchors: HashMap::new(),
        places: Vec::new(),
        known: HashMap::new(),
        patterns: 0,
        names: 0,
    };
    anchors(root, &mut String::new(), &mut walk.anchors);
    walk.place(root, String::new())?;
    let mut next = 0;
    while next < walk.places.len() {
        walk.enter(next)?;
        next += 1;
    }
    let mut asked = vec![None; walk.places.len()];
    for index in 0..walk.places.len() {
        weigh(&walk.places, index, &mut asked)?;
    }
    let cost = |patterns: u64| PATTERN_COST * patterns;
    Ok(Survey {
        text_cost: TextCost { value: cost(u64::from(walk.patterns > 0)), name: cost(walk.names) },
    })
}

/// A subschema.
struct Subschema<'a> {
    schema: &'a Value,
    pointer: String,
    /// The subschemas that apply in its place.
    in_place: Vec<usize>,
}

struct Walk<'a> {
    root: &'a Value,
    anchors: HashMap<&'a str, Vec<(String, &'a Value)>>,
    places: Vec<Subschema<'a>>,
    /// By the address of the value.
    known: HashMap<usize, usize>,
    patterns: usize,
    /// Maximum number of patterns with which one property name is matched.
    names: u64,
}

impl<'a> Walk<'a> {
    /// Returns the number of the subschema, which is new if it was not met before.
    fn place(&mut self, schema: &'a Value, pointer: String) -> Result<usize, Fault> {
        let address = ptr::from_ref(schema).addr();
        if let Some(index) = self.known.get(&address) {
            return Ok(*index);
        }
        if self.places.len() == SUBSCHEMAS {
            return Err(Fault::at(
                pointer,
                format!("is one subschema too many: at most {SUBSCHEMAS} are allowed"),
            ));
        }
        let index = self.places.len();
        self.known.insert(address, index);
        self.places.push(Subschema { schema, pointer, in_place: Vec::new() });
        Ok(index)
    }

    /// Finds the subschemas that apply in place, and those for members.
    fn enter(&mut self, index: usize) -> Result<(), Fault> {
        let (schema, pointer) = (self.places[index].schema, self.places[index].pointer.clone());
        let Value::Object(keywords) = schema else { return Ok(()) };
        if index > 0 && is_resource(self.root, keywords) {
            return Err(Fault::at(pointer, "must not have an $id: only the whole schema may"));
        }
        let mut in_place = Vec::new();
        for (keyword, value) in keywords {
            let at = format!("{pointer}/{}", escaped(keyword));
            let name = keyword.as_str();
            if IN_PLACE.contains(&name) {
                in_place.extend(self.held(value, &at)?);
            } else if IN_PLACE_NAMED.contains(&name) {
                in_place.extend(self.named(value, &at)?);
            } else if REFERENCES.contains(&name) {
                in_place.extend(self.referred(value, &at)?);
            } else if DOWN.contains(&name) {
                self.held(value, &at)?;
            } else if DOWN_NAMED.contains(&name) {
                self.named(value, &at)?;
            }
        }
        self.count_patterns(keywords, &pointer)?;
        self.places[index].in_place = in_place;
        Ok(())
    }

    fn count_patterns(
        &mut self,
        keywords: &Map<String, Value>,
        pointer: &str,
    ) -> Result<(), Fault> {
        let names =
            keywords.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
        self.names = self.names.max(names as u64);
        self.patterns += names + usize::from(keywords.contains_key("pattern"));
        // There, names are validated as strings, whose cost is charged by themselves.
        if keywords.contains_key("propertyNames") {
            self.names = self.names.max(PATTERNS as u64 / 10);
        }
        if self.patterns > PATTERNS {
            return Err(Fault::at(
                pointer,
                format!("has one pattern too many: at most {PATTERNS} are allowed"),
            ));
        }
        Ok(())
    }

    /// Enters a subschema or a list of subschemas. The meta-schema refuses anything else.
    fn held(&mut self, value: &'a Value, at: &str) -> Result<Vec<usize>, Fault> {
        match value {
            Value::Object(_) | Value::Bool(_) => Ok(vec![self.place(value, at.to_owned())?]),
            Value::Array(list) => list
                .iter()
                .enumerate()
                .map(|(index, one)| self.place(one, format!("{at}/{index}")))
                .collect(),
            _ => Ok(Vec::new()),
        }
    }

    fn named(&mut self, value: &'a Value, at: &str) -> Result<Vec<usize>, Fault> {
        let entries = value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, one)| one.is_object() || one.is_boolean());
        entries.map(|(name, one)| self.place(one, format!("{at}/{}", escaped(name)))).collect()
    }

    fn referred(&mut self, value: &'a Value, at: &str) -> Result<Vec<usize>, Fault> {
        let Some(text) = value.as_str() else { return Ok(Vec::new()) };
        let own = self
            .root
            .get("$id")
            .or_else(|| self.root.get("id"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        let own = own.trim_end_matches('#');
        let fragment = text.strip_prefix(own).filter(|_| !own.is_empty()).unwrap_or(text);
        let Some(fragment) =
            fragment.strip_prefix('#').or_else(|| fragment.is_empty().then_some(""))
        else {
            let description =
                "must refer into this schema, as in \"#/$defs/name\": nothing is fetched";
            return Err(Fault::at(at, description));
        };
        let fragment =
            percent_encoding::percent_decode_str(fragment).decode_utf8_lossy().into_owned();
        let found = if fragment.is_empty() || fragment.starts_with('/') {
            self.root.pointer(&fragment).map(|schema| vec![(fragment.clone(), schema)])
        } else {
            self.anchors.get(fragment.as_str()).cloned()
        };
        let found = found.ok_or_else(|| Fault::at(at, "refers to nothing"))?;
        found.into_iter().map(|(pointer, schema)| self.place(schema, pointer)).collect()
    }
}

/// How many subschemas are applied to a value to which this one is applied, and the longest chain
/// of subschemas in place of each other.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// Being weighed. Meeting it again means a cycle.
    Open,
    Known {
        times: u64,
        chain: u32,
    },
}

fn weigh(
    places: &[Subschema<'_>],
    index: usize,
    asked: &mut [Option<Asked>],
) -> Result<(u64, u32), Fault> {
    let fault = |description: String| Fault::at(places[index].pointer.clone(), description);
    match asked[index] {
        Some(Asked::Known { times, chain }) => return Ok((times, chain)),
        Some(Asked::Open) => {
            return Err(fault("must not refer to itself for the same value".to_owned()));
        }
        None => asked[index] = Some(Asked::Open),
    }
    let (mut times, mut chain) = (1_u64, 1_u32);
    for inner in &places[index].in_place {
        let (inner_times, inner_chain) = weigh(places, *inner, asked)?;
        times = times.saturating_add(inner_times);
        chain = chain.max(inner_chain.saturating_add(1));
    }
    if times > ASKED {
        return Err(fault(format!("must not ask more than {ASKED} subschemas about one value")));
    }
    if chain > CHAIN {
        return Err(fault(format!(
            "must not have more than {CHAIN} subschemas in place of each other"
        )));
    }
    asked[index] = Some(Asked::Known { times, chain });
    Ok((times, chain))
}

/// Whether a subschema is a resource of its own, against which references would be resolved.
fn is_resource(root: &Value, keywords: &Map<String, Value>) -> bool {
    let draft_4 =
        root.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04"));
    let id = keywords.get(if draft_4 { "id" } else { "$id" }).and_then(Value::as_str);
    id.is_some_and(|id| !id.starts_with('#'))
}

/// Collects every anchor, wherever it is. Finds more than the library does, never less.
fn anchors<'a>(
    value: &'a Value,
    pointer: &mut String,
    found: &mut HashMap<&'a str, Vec<(String, &'a Value)>>,
) {
    let length = pointer.len();
    match value {
        Value::Object(members) => {
            for keyword in ["$anchor", "$dynamicAnchor", "$id", "id"] {
                let Some(name) = members.get(keyword).and_then(Value::as_str) else { continue };
                let name =
                    if keyword.ends_with("id") { name.strip_prefix('#') } else { Some(name) };
                if let Some(name) = name {
                    found.entry(name).or_default().push((pointer.clone(), value));
                }
            }
            for (name, inner) in members {
                pointer.push('/');
                pointer.push_str(&escaped(name));
                anchors(inner, pointer, found);
                pointer.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                pointer.push_str(&format!("/{index}"));
                anchors(inner, pointer, found);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// Escapes a name for a JSON pointer (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
