//! The doc comments of the protos, as text for people.

use std::{collections::HashMap, sync::LazyLock};

use outrider_proto::DESCRIPTORS;
use prost_reflect::{
    EnumDescriptor, EnumValueDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor,
    MethodDescriptor,
};

type Location = (String, Vec<i32>);

static COMMENTS: LazyLock<HashMap<Location, String>> = LazyLock::new(|| {
    let of_file = |file: FileDescriptor| {
        let locations =
            file.file_descriptor_proto().source_code_info.clone().unwrap_or_default().location;
        let named =
            move |path: Vec<i32>, text: &str| ((file.name().to_owned(), path), unwrapped(text));
        locations
            .into_iter()
            .filter_map(move |place| Some(named(place.path, place.leading_comments.as_deref()?)))
    };
    DESCRIPTORS.files().flat_map(of_file).collect()
});

/// An element of a proto that can have a comment.
pub(super) trait Commented {
    /// Returns where the element is: its file and its path in the file.
    fn location(&self) -> Location;

    /// Returns the comment, or an empty text.
    fn comment(&self) -> &'static str {
        COMMENTS.get(&self.location()).map_or("", String::as_str)
    }
}

macro_rules! commented {
    ($($name:ty)*) => {$(impl Commented for $name {
        fn location(&self) -> Location {
            (self.parent_file().name().to_owned(), self.path().to_vec())
        }
    })*};
}

commented! {
    MessageDescriptor FieldDescriptor EnumDescriptor EnumValueDescriptor MethodDescriptor
    prost_reflect::ServiceDescriptor
}

/// Joins the lines of each paragraph: line breaks in a proto have no meaning.
fn unwrapped(text: &str) -> String {
    let paragraphs = text
        .trim()
        .split("\n\n")
        .map(|lines| lines.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    paragraphs.map(|paragraph| paragraph.trim().to_owned()).collect::<Vec<_>>().join("\n\n")
}

/// Returns the first sentence, for a title.
pub(super) fn summary(comment: &str) -> &str {
    let first = comment.split("\n\n").next().unwrap_or_default();
    first.split_once(". ").map_or(first, |(sentence, _)| sentence).trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_and_their_lines_joined() {
        let message = DESCRIPTORS.get_message_by_name("outrider.ingest.v1.NewEvent").unwrap();
        assert_eq!(message.comment(), "An event as its producer gives it.");
        let payload = message.get_field_by_name("payload").unwrap();
        assert!(
            payload.comment().contains("its text kept as it stands) or \"data_base64\""),
            "{}",
            payload.comment()
        );
        assert_eq!(unwrapped(" a\n b\n\n c\n"), "a b\n\nc");
        assert_eq!(summary("One thing. Errors: NONE."), "One thing");
        assert_eq!(summary("One thing."), "One thing");
    }
}
