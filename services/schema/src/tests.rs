//! Tests of refused schemas, violating payloads, and the time that either may take.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

/// Time limit for a schema that was written to be slow, on a slow machine and without optimization.
const PATIENCE: Duration = Duration::from_secs(60);
const STEPS: u64 = 1_000_000;

fn within_patience(began: Instant) {
    eprintln!("took {:?}", began.elapsed());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

fn compiled(schema: &Value) -> Schema {
    Schema::compile(&schema.to_string()).unwrap()
}

fn fault(schema: &Value) -> Fault {
    Schema::compile(&schema.to_string()).unwrap_err()
}

/// Returns the pointers of a payload's violations, found in both ways.
fn pointers(schema: &Value, payload: &Value) -> Vec<String> {
    let (schema, payload) = (compiled(schema), payload.to_string());
    let verdict = schema.validate_at_length(payload.as_bytes(), STEPS);
    assert_eq!(schema.validate_briefly(payload.as_bytes()), verdict);
    match verdict {
        Validation::Fits => Vec::new(),
        Validation::Violates(violations) => {
            violations.into_iter().map(|violation| violation.pointer).collect()
        }
        Validation::Undecided => panic!("undecided"),
    }
}

#[test]
fn violations_name_the_place_and_never_the_value() {
    let schema = json!({
        "type": "object", "required": ["items"], "additionalProperties": false,
        "properties": {
            "items": {"type": "array", "items": {"type": "object",
                "properties": {"price": {"type": "number", "minimum": 1}}}},
            "a/b": {"enum": ["x", "y"]}, "code": {"pattern": "^[a-z]+$", "maxLength": 3},
        },
    });
    assert!(
        pointers(&schema, &json!({"items": [{"price": 2}], "a/b": "x", "code": "abc"})).is_empty()
    );
    let secret = "SECRET-1234";
    let payload = json!({"items": [{"price": 1}, {"price": secret}, {"price": 0}], "a/b": secret,
        "code": secret});
    let mut found = pointers(&schema, &payload);
    found.sort();
    assert_eq!(found, ["/a~1b", "/code", "/code", "/items/1/price", "/items/2/price"]);
    let Validation::Violates(violations) =
        compiled(&schema).validate_briefly(payload.to_string().as_bytes())
    else {
        panic!()
    };
    assert!(!format!("{violations:?}").contains("SECRET"), "{violations:?}");
    let of =
        |pointer: &str| violations.iter().find(|violation| violation.pointer == pointer).unwrap();
    assert_eq!(of("/items/1/price").description, "must be of the type number");
    assert_eq!(of("/items/1/price").keyword, "/properties/items/items/properties/price/type");
    assert_eq!(of("/items/2/price").description, "must be at least 1");
    assert_eq!(of("/a~1b").description, r#"must be one of ["x","y"]"#);
    let Validation::Violates(violations) = compiled(&schema).validate_briefly(b"{\"other\": 1}")
    else {
        panic!()
    };
    let told: Vec<_> = violations.iter().map(|violation| violation.description.as_str()).collect();
    assert!(
        told.contains(&"must have the property \"items\"")
            && told.contains(&"must not have the properties \"other\""),
        "{told:?}"
    );
}

#[test]
fn no_more_violations_are_told_than_allowed() {
    let found = pointers(&json!({"items": {"type": "string"}}), &json!(vec![1; 100]));
    assert_eq!(found.len(), limits::SCHEMA_VIOLATIONS);
}

#[test]
fn every_draft_and_every_kind_of_reference_within_the_schema_is_known() {
    for draft in [
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
    ] {
        let schema = json!({"$schema": draft, "definitions": {"n": {"type": "number"}},
            "items": {"$ref": "#/definitions/n"}});
        assert_eq!(pointers(&schema, &json!([1, "a"])), ["/1"], "{draft}");
    }
    for draft in [
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        for reference in [
            "#/$defs/n",
            "#number",
            "https://example.com/s#/$defs/n",
            "https://example.com/s#number",
        ] {
            let schema = json!({"$schema": draft, "$id": "https://example.com/s",
                "items": {"$ref": reference},
                "$defs": {"n": {"$anchor": "number", "type": "number"}}});
            assert_eq!(pointers(&schema, &json!([1, "a"])), ["/1"], "{draft} {reference}");
        }
    }
    let tree = json!({"$dynamicAnchor": "node", "type": "object",
        "properties": {"children": {"items": {"$dynamicRef": "#node"}}}});
    assert_eq!(
        pointers(&tree, &json!({"children": [{"children": [{}, 1]}]})),
        ["/children/0/children/1"]
    );
    let odd = json!({"$defs": {"a b~/": {"type": "null"}}, "$ref": "#/$defs/a%20b~0~1"});
    assert_eq!(pointers(&odd, &json!(1)), [""]);
    assert!(pointers(&json!(true), &json!(1)).is_empty());
    assert_eq!(pointers(&json!(false), &json!(1)), [""]);
    // A type with two branches, like an expression tree.
    let expression = json!({"$ref": "#/$defs/e", "$defs": {"e": {"oneOf": [
        {"type": "number"},
        {"type": "object", "required": ["left", "right"],
            "properties": {"left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}}},
    ]}}});
    assert!(
        pointers(&expression, &json!({"left": {"left": 1, "right": 2}, "right": 3})).is_empty()
    );
    assert_eq!(pointers(&expression, &json!({"left": "x", "right": 3})), [""]);
}

#[test]
fn numbers_are_compared_by_their_value() {
    let schema = json!({"items": {"type": "integer", "enum": [1, 9_007_199_254_740_993_u64]}});
    assert_eq!(pointers(&schema, &json!([1, 1.0, 9_007_199_254_740_993_u64, 2])), ["/3"]);
    let Validation::Violates(violations) = compiled(&schema).validate_briefly(b"[1e400]") else {
        panic!()
    };
    assert!(violations[0].description.contains("too large"), "{violations:?}");
}

#[test]
fn what_is_no_schema_is_refused_with_the_place() {
    for (schema, pointer, why) in [
        (json!({"properties": {"a": {"type": "nonsense"}}}), "/properties/a/type", "must"),
        (json!({"items": {"minLength": -1}}), "/items/minLength", "must be at least 0"),
        (json!({"required": "a"}), "/required", "must be of the type array"),
        (
            json!({"properties": {"a": {"pattern": "("}}}),
            "/properties/a/pattern",
            "regular expression",
        ),
        (
            json!({"properties": {"a": {"pattern": "(?=a)b"}}}),
            "/properties/a/pattern",
            "look-around",
        ),
        (
            json!({"properties": {"a": {"pattern": "(a)\\1"}}}),
            "/properties/a/pattern",
            "back-references",
        ),
        (
            json!({"properties": {"a": {"pattern": "(((a{99}){99}){99}){99}"}}}),
            "/properties/a/pattern",
            "64 KiB",
        ),
        (json!({"patternProperties": {"(": true}}), "/patternProperties/(", "regular expression"),
        (json!({"$schema": "https://example.com/mine"}), "", ""),
        (json!({"items": {"$ref": "#/$defs/absent"}}), "/items/$ref", "refers to nothing"),
        (json!({"items": {"$ref": "#absent"}}), "/items/$ref", "refers to nothing"),
        (json!({"$ref": "#"}), "", "must not refer to itself"),
        (
            json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}),
            "",
            "must not refer to itself",
        ),
        (
            json!({"$defs": {"a": {"$id": "https://example.com/a"}},
                "items": {"$ref": "#/$defs/a"}}),
            "/$defs/a",
            "$id",
        ),
        (json!([1]), "", "must be a JSON object"),
        (json!("x"), "", "must be a JSON object"),
    ] {
        let fault = fault(&schema);
        assert!(fault.pointer == pointer && fault.description.contains(why), "{schema}: {fault:?}");
    }
    assert!(Schema::compile("{").unwrap_err().description.contains("must be JSON"));
    assert!(Schema::compile("{\"maximum\": 1e400}").is_err());
}

#[test]
fn nothing_is_fetched() {
    for reference in [
        "http://127.0.0.1:1/s.json",
        "https://example.com/s",
        "file:///etc/passwd",
        "other.json",
        "//example.com/s",
        "urn:x:y",
    ] {
        for keyword in ["$ref", "$dynamicRef"] {
            let fault = fault(&json!({"properties": {"a": {keyword: reference}}}));
            assert_eq!(fault.pointer, format!("/properties/a/{keyword}"), "{reference}");
            assert!(fault.description.contains("nothing is fetched"), "{fault:?}");
        }
    }
    // The library looks where the survey does not, and cannot fetch anything.
    assert!(
        fault(&json!({"$defs": {"a": {"$ref": "https://example.com/s"}}, "type": "string"}))
            .description
            .contains("disabled")
    );
}

#[test]
fn schemas_over_a_limit_are_refused() {
    let nested =
        |levels: usize| format!("{}{{}}{}", "{\"not\":".repeat(levels), "}".repeat(levels));
    assert!(Schema::compile(&nested(30)).is_ok());
    assert!(
        Schema::compile(&nested(40)).unwrap_err().description.contains("in place of each other")
    );
    assert!(Schema::compile(&nested(100)).unwrap_err().description.contains("nested deeper"));
    assert!(Schema::compile(&nested(5_000)).unwrap_err().description.contains("must be JSON"));
    let many = |count: usize| {
        json!({"properties": (0..count).map(|n| (format!("p{n}"),
        json!({}))).collect::<serde_json::Map<_, _>>()})
    };
    assert!(Schema::compile(&many(999).to_string()).is_ok());
    assert!(fault(&many(1_000)).description.contains("one subschema too many"));
    let patterns = |count: usize| json!({"prefixItems": vec![json!({"pattern": "a"}); count]});
    assert!(Schema::compile(&patterns(100).to_string()).is_ok());
    assert!(fault(&patterns(101)).description.contains("one pattern too many"));
    let long = json!({"description": "x".repeat(limits::SCHEMA_BYTES)});
    assert!(fault(&long).description.contains("at most 65536"));
    assert!(fault(&json!({"anyOf": vec![json!({}); 501]})).description.contains("more than 500"));
}

/// Returns a schema in which each definition applies the next one twice.
fn doubling(count: usize, inner: impl Fn(Value) -> Value) -> Value {
    let mut defs = serde_json::Map::new();
    for index in 0..count {
        let next = inner(json!({"$ref": format!("#/$defs/d{}", index + 1)}));
        defs.insert(format!("d{index}"), json!({"anyOf": [next, next]}));
    }
    defs.insert(format!("d{count}"), json!({"type": "null"}));
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

#[test]
fn schemas_that_double_are_refused_or_end() {
    assert!(fault(&doubling(40, |next| next)).description.contains("more than 500"));
    // They double with each level down, which is only known with a payload.
    let began = Instant::now();
    let down = compiled(&doubling(60, |next| json!({"properties": {"x": next}})));
    let nested = |depth: usize, leaf: &str| {
        format!("{}{leaf}{}", "{\"x\":".repeat(depth), "}".repeat(depth))
    };
    assert_eq!(down.validate_briefly(nested(60, "1").as_bytes()), Validation::Undecided);
    assert_eq!(down.validate_at_length(nested(60, "1").as_bytes(), STEPS), Validation::Undecided);
    assert_eq!(down.validate_at_length(nested(60, "null").as_bytes(), STEPS), Validation::Fits);
    // Two branches with one key, at any depth. Errors of both are collected at each level.
    let branch = |kind: &str| {
        json!({"properties": {"op": {"const": kind},
        "x": {"$ref": "#/$defs/e"}}, "required": ["op"]})
    };
    let twins =
        compiled(&json!({"$ref": "#/$defs/e", "$defs": {"e": {"oneOf": [branch("a"), branch("b"),
            {"type": "null"}]}}}));
    assert_ne!(twins.validate_at_length(nested(120, "1").as_bytes(), STEPS), Validation::Fits);
    let unevaluated = json!({"properties": {"x": {"$ref": "#"}},
        "anyOf": [{"properties": {"x": {"$ref": "#"}}}, true], "unevaluatedProperties": false});
    assert_ne!(
        compiled(&unevaluated).validate_at_length(nested(120, "{\"y\":1}").as_bytes(), STEPS),
        Validation::Fits
    );
    within_patience(began);
}

#[test]
fn long_chains_neither_overflow_a_stack_nor_take_for_ever() {
    let began = Instant::now();
    // The maximum number of definitions, each behind the last one.
    let mut defs: serde_json::Map<_, _> = (0..480)
        .map(|index| {
            (
                format!("d{index}"),
                json!({"properties": {"x": {"$ref": format!("#/$defs/d{}", index + 1)}}}),
            )
        })
        .collect();
    defs.insert("d480".to_owned(), json!(true));
    let deep = compiled(&json!({"$ref": "#/$defs/d0", "$defs": defs}));
    assert_eq!(deep.validate_at_length(b"{\"x\":{\"x\":1}}", STEPS), Validation::Fits);
    // The longest chain in place, at each level of the deepest payload, on the small stack of a
    // thread that also drops it.
    let chain = |index: usize| {
        (format!("c{index}"), json!({"allOf": [{"$ref": format!("#/$defs/c{}", index + 1)}]}))
    };
    let mut defs: serde_json::Map<_, _> = (0..13).map(chain).collect();
    defs.insert(
        "c13".to_owned(),
        json!({"items": {"$ref": "#/$defs/c0"}, "type": ["array", "null"]}),
    );
    let chained = compiled(&json!({"$ref": "#/$defs/c0", "$defs": defs}));
    let payload = format!("{}null{}", "[".repeat(127), "]".repeat(127));
    let outcome = std::thread::Builder::new().stack_size(2 * 1_024 * 1_024).spawn(move || {
        let brief = chained.validate_briefly(payload.as_bytes());
        (brief, chained.validate_at_length(payload.as_bytes(), STEPS), drop(deep))
    });
    let (brief, at_length, ()) = outcome.unwrap().join().unwrap();
    assert!(brief != Validation::Violates(Vec::new()), "{brief:?}");
    assert_eq!(at_length, Validation::Fits);
    within_patience(began);
}

#[test]
fn patterns_take_time_by_the_length_of_the_text() {
    let began = Instant::now();
    let long = Value::String("a".repeat(1_000_000)).to_string();
    // Exponential for an engine that backtracks. For one that does not, very many states.
    for pattern in ["^(a+)+$b", "(a|b)*a(a|b){200}c", "^(([a-z])+.)+[A-Z]([a-z])+$"] {
        let schema = compiled(&json!({"pattern": pattern}));
        assert_eq!(
            schema.validate_at_length(long.as_bytes(), STEPS),
            Validation::Undecided,
            "{pattern}"
        );
        assert_ne!(
            schema.validate_at_length(format!("\"{}\"", "ab".repeat(50_000)).as_bytes(), STEPS),
            Validation::Fits,
            "{pattern}"
        );
        let names = compiled(&json!({"patternProperties": {pattern: false}}));
        assert_ne!(
            names.validate_at_length(format!("{{{long}: 1}}").as_bytes(), STEPS),
            Validation::Violates(Vec::new())
        );
    }
    // Without patterns, the length does not matter.
    assert_eq!(
        compiled(&json!({"type": "string", "minLength": 5}))
            .validate_at_length(long.as_bytes(), STEPS),
        Validation::Fits
    );
    within_patience(began);
}

#[test]
fn large_payloads_of_ordinary_schemas_are_decided() {
    let schema =
        compiled(&json!({"items": {"type": "object", "required": ["id", "tags"], "properties": {
        "id": {"type": "integer", "minimum": 0}, "name": {"type": "string", "pattern": "^[a-z ]*$"},
        "tags": {"type": "array", "uniqueItems": true, "items": {"enum": ["a", "b", "c"]}},
    }, "additionalProperties": false}}));
    let items: Vec<Value> =
        (0..15_000).map(|id| json!({"id": id, "name": "some name", "tags": ["a", "b"]})).collect();
    let payload = Value::Array(items).to_string();
    assert!(payload.len() > 700_000);
    assert_eq!(schema.validate_briefly(payload.as_bytes()), Validation::Undecided);
    let began = Instant::now();
    assert_eq!(schema.validate_at_length(payload.as_bytes(), 2 * STEPS), Validation::Fits);
    eprintln!("{} bytes in {:?}", payload.len(), began.elapsed());
}
