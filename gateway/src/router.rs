//! From a method and a path to what stands there: a tree over the segments of path templates.
//!
//! A literal segment comes before one in braces, and what matches but has not the method does not hide
//! what has it further on. Looking up costs no more steps than there are nodes in the tree.

use std::borrow::Cow;

use foldhash::HashMap;
use http::Method;

use crate::input::percent_decode;

/// How many segments a template may have.
pub(crate) const MAX_SEGMENTS: usize = 16;

/// Why a template has no place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// It is no template.
    Malformed,
    /// Another is there that matches the same paths.
    Taken,
}

/// The tree.
pub(crate) struct Router<T> {
    literal: HashMap<Box<str>, Self>,
    hole: Option<Box<Self>>,
    here: Vec<(Method, T)>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { literal: HashMap::default(), hole: None, here: Vec::new() }
    }
}

/// What a look-up finds.
pub(crate) enum Found<'t, T> {
    /// What stands there, and the segments in the place of the braces, decoded.
    Hit(&'t T, Vec<String>),
    /// The path is known, the method is not: one that stands there, and the methods that are.
    Other(&'t T, Vec<&'t Method>),
    /// Nothing.
    Missing,
}

impl<T> Router<T> {
    /// Adds a template: `/textures/{x}`.
    pub(crate) fn insert(
        &mut self,
        method: Method,
        template: &str,
        value: T,
    ) -> Result<(), NoPlace> {
        let path = template.strip_prefix('/').ok_or(NoPlace::Malformed)?;
        if path.split('/').count() > MAX_SEGMENTS {
            return Err(NoPlace::Malformed);
        }
        let mut node = self;
        for segment in path.split('/') {
            let is_hole = segment.starts_with('{') && segment.ends_with('}');
            if segment.is_empty() || (!is_hole && segment.contains(['{', '}'])) {
                return Err(NoPlace::Malformed);
            }
            node = match is_hole {
                true => node.hole.get_or_insert_default(),
                false => node.literal.entry(segment.into()).or_default(),
            };
        }
        if node.here.iter().any(|(known, _)| *known == method) {
            return Err(NoPlace::Taken);
        }
        node.here.push((method, value));
        Ok(())
    }

    /// Looks a path up, as it stands in a request. `HEAD` is `GET`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_, T> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let Some(path) = path.strip_prefix('/') else { return Found::Missing };
        let mut others = Vec::new();
        let mut values = Vec::new();
        if let Some(hit) = self.search(method, Some(path), &mut values, &mut others) {
            let plain = values.into_iter().map(Cow::into_owned).collect();
            return Found::Hit(hit, plain);
        }
        match others.first() {
            None => Found::Missing,
            Some((_, value)) => Found::Other(value, others.iter().map(|(m, _)| m).collect()),
        }
    }

    fn search<'t, 'p>(
        &'t self,
        method: &Method,
        path: Option<&'p str>,
        values: &mut Vec<Cow<'p, str>>,
        others: &mut Vec<&'t (Method, T)>,
    ) -> Option<&'t T> {
        let Some(path) = path else {
            let hit = self.here.iter().find(|(known, _)| known == method);
            if hit.is_none() {
                others.extend(&self.here);
            }
            return hit.map(|(_, value)| value);
        };
        let (segment, rest) = match path.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (path, None),
        };
        let segment = match segment.contains('%') {
            true => Cow::Owned(percent_decode(segment, false)?),
            false => Cow::Borrowed(segment),
        };
        if let Some(node) = self.literal.get(&*segment)
            && let Some(hit) = node.search(method, rest, values, others)
        {
            return Some(hit);
        }
        let hole = self.hole.as_ref().filter(|_| !segment.is_empty())?;
        values.push(segment);
        let hit = hole.search(method, rest, values, others);
        if hit.is_none() {
            values.pop();
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router<&'static str> {
        let mut router = Router::default();
        for (method, template) in [
            (Method::GET, "/Xy"),
            (Method::POST, "/Xy"),
            (Method::GET, "/textures/{x}/{y}"),
            (Method::GET, "/textures/{name}"),
            (Method::POST, "/textures/new"),
            (Method::GET, "/a/b/c"),
            (Method::GET, "/{any}/b/d"),
        ] {
            assert_eq!(router.insert(method, template, template), Ok(()));
        }
        router
    }

    #[test]
    fn a_path_finds_its_template_and_values() {
        let router = router();
        let table = [
            ("/Xy", "/Xy", vec![]),
            ("/%58y", "/Xy", vec![]),
            ("/textures/2/3", "/textures/{x}/{y}", vec!["2", "3"]),
            ("/textures/a%2Fb%20c", "/textures/{name}", vec!["a/b c"]),
            // A literal one of another method does not hide it.
            ("/textures/new", "/textures/{name}", vec!["new"]),
            // Nor does one that leads nowhere.
            ("/a/b/d", "/{any}/b/d", vec!["a"]),
        ];
        for (path, template, expected) in table {
            match router.find(&Method::GET, path) {
                Found::Hit(hit, values) => assert_eq!((*hit, values), (template, owned(&expected))),
                Found::Other(..) | Found::Missing => panic!("{path} is not found"),
            }
        }
        assert!(matches!(router.find(&Method::HEAD, "/Xy"), Found::Hit(&"/Xy", _)));
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_not_there_is_missing() {
        let router = router();
        for path in
            ["/", "", "*", "/xy", "/Xy/", "//Xy", "/textures/", "/textures//3", "/%zz", "/..%2fXy"]
        {
            assert!(matches!(router.find(&Method::GET, path), Found::Missing), "{path}");
        }
        let deep = "/a".repeat(5_000);
        assert!(matches!(router.find(&Method::GET, &deep), Found::Missing));
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let router = router();
        let Found::Other(_, methods) = router.find(&Method::DELETE, "/textures/new") else {
            panic!("the path is known")
        };
        assert_eq!(methods, [&Method::POST, &Method::GET]);
    }

    #[test]
    fn a_place_is_taken_once() {
        let mut router = router();
        let again = router.insert(Method::GET, "/textures/{a}/{b}", "later");
        assert_eq!(again, Err(NoPlace::Taken));
        assert_eq!(router.insert(Method::PUT, "/textures/{a}/{b}", "later"), Ok(()));
        let long = "/a".repeat(MAX_SEGMENTS + 1);
        for template in ["", "a", "/", "/a//b", "/a{b}", "/{a", long.as_str()] {
            let refused = router.insert(Method::GET, template, "?");
            assert_eq!(refused, Err(NoPlace::Malformed), "{template}");
        }
    }
}
