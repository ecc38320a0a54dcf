//! Checks the modules of each crate: one style of files, and no cycles.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

use crate::workspace::{packages, sources};

/// A path inside a crate: `[]` is the root module.
type ModulePath = Vec<String>;

/// A module, with the names that it imports and the paths that its code mentions.
#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    /// Names of items that the module defines.
    items: BTreeSet<String>,
    /// Imported names, with their paths as written.
    imports: BTreeMap<String, Vec<String>>,
    /// Modules whose names are all imported.
    globs: Vec<Vec<String>>,
    /// Paths that the module uses, as written.
    used: Vec<Vec<String>>,
    /// Identifiers in the module's code, outside `use`.
    identifiers: BTreeSet<String>,
}

/// The modules of one crate, except those that are compiled only for tests.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut read = Self::default();
        read.file(root, Vec::new(), root.parent().unwrap());
        read
    }

    /// Reads a file; its child modules are in `directory`.
    fn file(&mut self, file: &Path, path: ModulePath, directory: &Path) {
        let parsed = syn::parse_file(&fs::read_to_string(file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.items(file, path, directory, parsed.items);
    }

    fn items(&mut self, file: &Path, path: ModulePath, directory: &Path, items: Vec<Item>) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items {
            match item {
                Item::Mod(child) if !only_for_tests(&child.attrs) => {
                    let name = child.ident.to_string();
                    let child_path = [path.clone(), vec![name.clone()]].concat();
                    let inside = directory.join(&name);
                    match child.content {
                        Some((_, items)) => self.items(file, child_path, &inside, items),
                        None => {
                            let beside = directory.join(format!("{name}.rs"));
                            let child =
                                if beside.exists() { beside } else { inside.join("mod.rs") };
                            self.file(&child, child_path, &inside);
                        }
                    }
                    module.children.insert(name);
                }
                Item::Mod(_) => {}
                Item::Use(one) if !only_for_tests(&one.attrs) => module.import(&one),
                Item::Use(_) => {}
                item => module.code(&item),
            }
        }
        self.modules.insert(path, module);
    }

    /// Returns the module that defines the item which `written` means inside `from`, if it belongs
    /// to this crate.
    fn resolve(&self, from: &ModulePath, written: &[String], depth: usize) -> Option<ModulePath> {
        let (first, mut rest) = written.split_first()?;
        let module = self.modules.get(from)?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from.split_last()?.1.to_vec(),
            name if module.children.contains(name) => [from.clone(), vec![name.into()]].concat(),
            name => {
                let imported = module.imports.get(name).filter(|path| path.first() != Some(first));
                let path = [imported?, rest].concat();
                return (depth > 0).then(|| self.resolve(from, &path, depth - 1))?;
            }
        };
        while let Some((name, after)) = rest.split_first() {
            let module = self.modules.get(&at)?;
            if name == "super" {
                at.pop()?;
            } else if module.children.contains(name) {
                at.push(name.clone());
            } else if module.items.contains(name) || depth == 0 {
                return Some(at);
            } else if let Some(imported) = module.imports.get(name) {
                return self.resolve(&at, &[imported, after].concat(), depth - 1).or(Some(at));
            } else {
                let globs = module.globs.iter();
                let path = |glob: &Vec<String>| [glob.as_slice(), rest].concat();
                let found = globs.filter_map(|glob| self.defined(&at, &path(glob), depth - 1));
                return found.into_iter().next().or(Some(at));
            }
            rest = after;
        }
        Some(at)
    }

    /// Like `resolve`, but only if the item is really there.
    fn defined(&self, from: &ModulePath, written: &[String], depth: usize) -> Option<ModulePath> {
        let found = self.resolve(from, written, depth)?;
        self.modules[&found].items.contains(written.last()?).then_some(found)
    }

    /// For each module, the edges between its children. The module's own items are the child
    /// `self`.
    fn edges(&self) -> BTreeMap<ModulePath, BTreeMap<String, BTreeMap<String, String>>> {
        let mut edges: BTreeMap<ModulePath, BTreeMap<String, BTreeMap<String, String>>> =
            BTreeMap::new();
        for (from, module) in &self.modules {
            let through_names = module
                .imports
                .iter()
                .filter_map(|(name, path)| module.identifiers.contains(name).then_some(path));
            for written in module.used.iter().chain(through_names) {
                let Some(to) = self.resolve(from, written, 8).filter(|to| to != from) else {
                    continue;
                };
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                let node = |path: &ModulePath| {
                    path.get(common).cloned().unwrap_or_else(|| "self".to_owned())
                };
                let example = format!("{} uses {}", module.file.display(), written.join("::"));
                edges
                    .entry(from[..common].to_vec())
                    .or_default()
                    .entry(node(from))
                    .or_default()
                    .entry(node(&to))
                    .or_insert(example);
            }
        }
        edges
    }

    /// Returns the cycles, each as the list of the uses that form it.
    fn cycles(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (parent, graph) in self.edges() {
            for start in graph.keys() {
                // A cycle is reported once, by the first of its modules.
                if let Some(cycle) = cycle_from(&graph, start)
                    && cycle.iter().min() == Some(start)
                {
                    let uses = cycle.iter().zip(cycle.iter().cycle().skip(1));
                    let uses: Vec<_> =
                        uses.map(|(from, to)| format!("    {}", graph[from][to])).collect();
                    let parent = [vec!["crate".to_owned()], parent.clone()].concat().join("::");
                    found.push(format!("in {parent}: {}\n{}", cycle.join(" -> "), uses.join("\n")));
                }
            }
        }
        found
    }
}

impl Module {
    fn import(&mut self, item: &ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut paths);
        // A re-export alone is not a use of the item.
        let is_use = matches!(item.vis, Visibility::Inherited);
        for (name, path) in paths {
            if is_use {
                self.used.push(path.clone());
            }
            match name {
                Some(name) => _ = self.imports.insert(name, path),
                None => self.globs.push(path),
            }
        }
    }

    fn code(&mut self, item: &Item) {
        let name = match item {
            Item::Const(one) => Some(&one.ident),
            Item::Enum(one) => Some(&one.ident),
            Item::Fn(one) => Some(&one.sig.ident),
            Item::Macro(one) => one.ident.as_ref(),
            Item::Static(one) => Some(&one.ident),
            Item::Struct(one) => Some(&one.ident),
            Item::Trait(one) => Some(&one.ident),
            Item::Type(one) => Some(&one.ident),
            Item::Union(one) => Some(&one.ident),
            _ => None,
        };
        self.items.extend(name.map(ToString::to_string));
        self.tokens(item.to_token_stream());
    }

    /// Collects paths, including those in macros.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        // `$crate` in a macro counts in the module that uses the macro, if it is written there.
        let mut in_macro = false;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    let name = name.to_string();
                    self.identifiers.insert(name.clone());
                    if colons != 2 {
                        self.end(&mut path);
                    }
                    if std::mem::take(&mut in_macro) && name == "crate" {
                        colons = 0;
                        continue;
                    }
                    // A path after `>::`, or with `::` at its beginning, does not belong to this
                    // crate.
                    if colons != 2 || !path.is_empty() {
                        path.push(name);
                    }
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end(&mut path);
                    colons = 0;
                    self.tokens(group.stream());
                }
                other => {
                    self.end(&mut path);
                    colons = 0;
                    in_macro = matches!(other, TokenTree::Punct(mark) if mark.as_char() == '$');
                }
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.used.push(path);
        }
    }
}

/// Returns the names that a `use` imports, with their paths, and without a name for `*`.
fn flatten(
    tree: &UseTree,
    before: &mut Vec<String>,
    paths: &mut Vec<(Option<String>, Vec<String>)>,
) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, paths);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            paths.push((before.last().cloned(), before.clone()));
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            paths.push((Some(name.clone()), [before.clone(), vec![name]].concat()));
        }
        UseTree::Rename(name) => {
            let path = [before.clone(), vec![name.ident.to_string()]].concat();
            paths.push((Some(name.rename.to_string()), path));
        }
        UseTree::Glob(_) => paths.push((None, before.clone())),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, before, paths);
            }
        }
    }
}

/// Returns a path in `graph` from `start` to itself.
fn cycle_from(
    graph: &BTreeMap<String, BTreeMap<String, String>>,
    start: &str,
) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut paths = vec![vec![start.to_owned()]];
    while let Some(path) = paths.pop() {
        for next in graph.get(path.last()?).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(path);
            }
            if seen.insert(next) {
                paths.push([path.clone(), vec![next.clone()]].concat());
            }
        }
    }
    None
}

fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|one| {
        one.path().is_ident("cfg") && {
            let condition = one.meta.to_token_stream().to_string();
            condition.contains("test") || condition.contains("fuzz")
        }
    })
}

#[test]
fn modules_of_a_crate_form_no_cycles() {
    let mut checked = 0;
    let mut found = Vec::new();
    for (name, package) in packages() {
        for root in ["src/lib.rs", "src/main.rs"].map(|root| package.root.join(root)) {
            if root.exists() {
                let read = Crate::read(&root);
                checked += read.modules.len();
                found.extend(read.cycles().into_iter().map(|cycle| format!("{name}, {cycle}")));
            }
        }
    }
    assert!(checked > 300, "only {checked} modules were found");
    assert!(found.is_empty(), "{} cycles:\n{}", found.len(), found.join("\n"));
}

/// What the check finds, and what it permits.
#[test]
fn cycles_are_found() {
    let cycles = |files: &[(&str, &str)]| {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Crate::read(&directory.path().join("lib.rs")).cycles()
    };
    let root = ("lib.rs", "mod a; mod b; pub use b::B;");
    let between = |a: &str, b: &str| cycles(&[root, ("a.rs", a), ("b.rs", b)]).len();
    assert_eq!(between("use crate::b::B; pub struct A;", "pub struct B;"), 0);
    assert_eq!(between("use crate::b::B; pub struct A;", "use super::a::A; pub struct B;"), 1);
    // Through a re-export, inside a macro, in a signature.
    assert_eq!(between("use crate::B; pub struct A;", "pub struct B(crate::a::A);"), 1);
    assert_eq!(between("fn f() { x!(crate::B) } pub struct A;", "pub struct B(crate::a::A);"), 1);
    assert_eq!(between("use crate::B;", "#[cfg(test)] mod t { use crate::a; } pub struct B;"), 0);
    // Between a module and its child.
    let nested = |a: &str, c: &str| cycles(&[("lib.rs", "mod a;"), ("a/mod.rs", a), ("a/c.rs", c)]);
    assert_eq!(nested("mod c; pub struct A; fn f(_: c::C) {}", "pub struct C(super::A);").len(), 1);
    assert_eq!(nested("mod c; pub use c::C; pub struct A;", "pub struct C(super::A);").len(), 0);
    let used = "mod c; pub use c::C; pub struct A(C);";
    assert_eq!(nested(used, "pub struct C(super::A);").len(), 1);
}

#[test]
fn a_module_with_children_is_a_directory_with_mod_rs() {
    let mut found = Vec::new();
    for package in packages().values() {
        for path in sources(&package.root) {
            let directory = path.with_extension("");
            if directory.is_dir() && directory.file_name().is_some_and(|name| name != "mod") {
                found.push(path);
            }
        }
    }
    assert!(found.is_empty(), "move each to NAME/mod.rs: {found:#?}");
}
