//! The fields of a noun that callers set. Each noun lists them once, with what reads each from the
//! message and where it belongs in the spec. Creations and updates follow from the list.

use outrider_model::error::Violations;
use prost_types::FieldMask;

use crate::mask::{Changes, Mutable};

/// Puts a value that was read into a spec.
type Put<S> = Box<dyn Fn(&mut S) + Send>;
/// Reads and checks a value of a message.
type Read<'a, W, S> = dyn Fn(&mut Violations, &W) -> Put<S> + 'a;

/// A field of the message `W` that callers set in the spec `S`.
pub struct Field<'a, W, S> {
    name: &'static str,
    aliases: &'static [&'static str],
    is_set: fn(&W) -> bool,
    read: Box<Read<'a, W, S>>,
}

impl<'a, W, S: 'static> Field<'a, W, S> {
    /// `is_set` is whether the message has a value, which matters if there is no mask. `read` reads
    /// and checks the value, or its default if the message has none. `place` is where it belongs.
    pub fn new<T: Clone + Send + 'static>(
        name: &'static str,
        is_set: fn(&W) -> bool,
        read: impl Fn(&mut Violations, &W) -> T + 'a,
        place: fn(&mut S) -> &mut T,
    ) -> Self {
        let read = move |violations: &mut Violations, message: &W| -> Put<S> {
            let value = read(violations, message);
            Box::new(move |spec| *place(spec) = value.clone())
        };
        Self { name, aliases: &[], is_set, read: Box::new(read) }
    }

    /// Other paths by which a mask may name the field: the members of a oneof.
    pub fn or(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
}

/// A change of a spec, without the fields that stay as they are.
pub struct Change<S>(Vec<Put<S>>);

impl<S: Default> Change<S> {
    /// Makes the change.
    pub fn apply(&self, spec: &mut S) {
        self.0.iter().for_each(|put| put(spec));
    }

    /// The changed fields, with defaults in the place of the others.
    pub fn given(&self) -> S {
        let mut spec = S::default();
        self.apply(&mut spec);
        spec
    }
}

/// Reads the whole spec of a noun to create. Only valid if there are no violations.
pub fn read<W, S: Default + 'static>(
    violations: &mut Violations,
    fields: &[Field<'_, W, S>],
    message: &W,
) -> S {
    Change(fields.iter().map(|field| (field.read)(violations, message)).collect()).given()
}

/// Reads the fields that an update changes. Only valid if there are no violations.
pub fn changes<W, S: Default + 'static>(
    violations: &mut Violations,
    fields: &[Field<'_, W, S>],
    message: &W,
    mask: Option<&FieldMask>,
    fixed: &[&str],
) -> Change<S> {
    let mutable: Vec<Mutable> = fields
        .iter()
        .map(|field| Mutable {
            name: field.name,
            aliases: field.aliases,
            set: (field.is_set)(message),
        })
        .collect();
    let changes = Changes::resolve(violations, mask, &mutable, fixed);
    let read =
        |field: &Field<'_, W, S>| changes.take(field.name, || (field.read)(violations, message));
    Change(fields.iter().filter_map(read).collect())
}
