//! The routes of a configuration.

use std::sync::Arc;

use crate::knows::{Knows, Needs};
use crate::pattern::Pattern;

/// The routes of model names, in their order. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(Arc<[Route]>);

/// A way from model names to upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The names that take it.
    pub pattern: Pattern,
    /// Other names that take it.
    pub aliases: Vec<String>,
    /// The upstreams, in the order in which they are asked.
    pub hops: Vec<Hop>,
}

/// An upstream of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The name of the upstream.
    pub upstream: Arc<str>,
    /// The model's name there; a `*` in it is the part that the route's `*` matched. Without it, the
    /// upstream gets the requested name, and the route's own name for an alias.
    pub model: Option<String>,
    /// The parts of the chat API that the upstream has.
    pub knows: Knows,
}

/// An upstream to ask, and the model to ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name of the upstream.
    pub upstream: Arc<str>,
    /// The model's name there.
    pub model: String,
    /// The name that has the route.
    pub asked: String,
    /// The parts of the chat API that the upstream has.
    pub knows: Knows,
}

impl Target {
    /// Returns whether both are one model of one upstream.
    pub fn is_same_model(&self, other: &Self) -> bool {
        self.upstream == other.upstream && self.model == other.model
    }
}

impl FromIterator<Route> for Routes {
    fn from_iter<I: IntoIterator<Item = Route>>(routes: I) -> Self {
        Self(routes.into_iter().collect())
    }
}

impl Routes {
    /// Makes the route of every model to one upstream.
    pub fn to_one(upstream: &str, knows: Knows) -> Self {
        let hop = Hop {
            upstream: upstream.into(),
            model: None,
            knows,
        };
        let any = Pattern::parse("*").map(|pattern| Route {
            pattern,
            aliases: Vec::new(),
            hops: vec![hop],
        });
        any.into_iter().collect()
    }

    /// Returns the upstreams to ask for a model, in their order; none if it has no route. A route of
    /// exactly this name or alias comes before a pattern that matches; of several patterns the first
    /// counts.
    pub fn targets(&self, model: &str) -> Vec<Target> {
        let is_exact = |route: &&Route| {
            route.pattern.name() == Some(model) || route.aliases.iter().any(|alias| alias == model)
        };
        let route = self.0.iter().find(is_exact).or_else(|| {
            let mut routes = self.0.iter();
            routes.find(|route| route.pattern.matched(model).is_some())
        });
        let Some(route) = route else {
            return Vec::new();
        };
        let hops = route.hops.iter();
        hops.map(|hop| hop.target(route, model)).collect()
    }

    /// Returns the upstreams of a model's route that can serve a request.
    ///
    /// # Errors
    /// If there are none.
    pub fn able(&self, model: &str, needs: Needs) -> Result<Vec<Target>, Unroutable> {
        let mut targets = self.targets(model);
        let Some(first) = targets.first() else {
            return Err(Unroutable::NoRoute);
        };
        let missing = first.knows.lacks(needs);
        targets.retain(|target| target.knows.lacks(needs).is_none());
        match missing {
            Some(field) if targets.is_empty() => Err(Unroutable::Lacks(field)),
            _ => Ok(targets),
        }
    }

    /// Returns the routes.
    pub fn all(&self) -> &[Route] {
        &self.0
    }
}

/// No upstream can serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unroutable {
    /// The model has no route.
    NoRoute,
    /// The upstreams of its route lack this field.
    Lacks(&'static str),
}

impl Route {
    /// Returns the names that take the route, without those that only match its pattern.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.iter().map(String::as_str);
        self.pattern.name().into_iter().chain(aliases)
    }
}

impl Hop {
    fn target(&self, route: &Route, asked: &str) -> Target {
        let matched = route.pattern.matched(asked);
        let model = match (&self.model, matched) {
            (Some(model), Some(matched)) => model.replace('*', matched),
            (Some(model), None) => model.clone(),
            (None, Some(_)) => asked.to_owned(),
            // An alias.
            (None, None) => route.pattern.name().unwrap_or(asked).to_owned(),
        };
        Target {
            upstream: Arc::clone(&self.upstream),
            model,
            asked: asked.to_owned(),
            knows: self.knows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pattern: &str, aliases: &[&str], hops: &[(&str, Option<&str>)]) -> Route {
        Route {
            pattern: Pattern::parse(pattern).unwrap(),
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            hops: hops
                .iter()
                .map(|(upstream, model)| Hop {
                    upstream: (*upstream).into(),
                    model: model.map(str::to_owned),
                    knows: Knows::default(),
                })
                .collect(),
        }
    }

    fn asked(routes: &Routes, model: &str) -> Vec<(String, String)> {
        let targets = routes.targets(model).into_iter();
        targets
            .map(|target| (target.upstream.to_string(), target.model))
            .collect()
    }

    #[test]
    fn a_name_takes_its_own_route_before_the_first_pattern_that_matches() {
        let routes: Routes = [
            route("gpt-*", &[], &[("a", None), ("b", Some("their-*"))]),
            route("gpt-4o", &["fast", "gpt-fast"], &[("c", None)]),
            route("*", &["any"], &[("d", Some("m"))]),
        ]
        .into_iter()
        .collect();
        for (model, expected) in [
            ("gpt-4o", &[("c", "gpt-4o")][..]),
            ("fast", &[("c", "gpt-4o")]),
            ("gpt-fast", &[("c", "gpt-4o")]),
            ("gpt-3", &[("a", "gpt-3"), ("b", "their-3")]),
            ("other", &[("d", "m")]),
            ("any", &[("d", "m")]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(upstream, model)| ((*upstream).to_owned(), (*model).to_owned()))
                .collect();
            assert_eq!(asked(&routes, model), expected, "{model}");
        }
        let few: Routes = [route("m", &[], &[("a", None)])].into_iter().collect();
        assert_eq!(few.targets("n"), []);
        assert_eq!(few.able("n", Needs::default()), Err(Unroutable::NoRoute));
    }

    #[test]
    fn an_upstream_that_lacks_what_a_request_needs_is_passed_over() {
        let mut both = route("m", &[], &[("a", None), ("b", None)]);
        both.hops[0].knows.tools = false;
        both.hops[0].knows.response_format = false;
        both.hops[1].knows.response_format = false;
        let routes: Routes = [both].into_iter().collect();
        let with = |needs| {
            let able = routes.able("m", needs);
            able.map(|targets| targets.iter().map(|it| it.upstream.to_string()).collect())
        };
        let names = |names: &[&str]| Ok(names.iter().map(|&name| name.to_owned()).collect());
        let needs = Needs::default();
        assert_eq!(with(needs), names(&["a", "b"]) as Result<Vec<_>, _>);
        let tools = Needs {
            tools: true,
            ..needs
        };
        assert_eq!(with(tools), names(&["b"]));
        let format = Needs {
            response_format: true,
            ..needs
        };
        assert_eq!(with(format), Err(Unroutable::Lacks("response_format")));
    }
}
