//! Which controller a path belongs to.

use std::fmt;

use crate::base::rule::Unfit;
use crate::controller::http::Controller;
use crate::http::path::{self, Parameters, Pattern};
use crate::server::error::Error;
use crate::websocket::settings::Websocket;

/// A path with its controller: what [`route!`](crate::route) makes.
pub struct Route {
    path: String,
    controller: Box<dyn Controller>,
    name: &'static str,
    /// Its place among the routes, as they were written.
    number: usize,
}

impl Route {
    /// Serves `path` with `controller`. In a path, `:name` takes one segment and a trailing `*name` takes all that is
    /// left, which may be nothing behind its slash; a wrong one is an error when the server starts. Values are decoded and
    /// then taken as they are: one may be `..`, so they are no file names.
    ///
    /// Where several routes match, the more specific one is taken, in whatever order they stand: a segment as it is comes
    /// before `:name`, and that before `*name`. Two that match the same paths are an error when the server starts.
    ///
    /// It takes all methods: which one it is says [`Request::method`](crate::http::Request::method), and
    /// [`Response::method_not_allowed`](crate::http::Response::method_not_allowed) is the answer to others.
    #[must_use]
    pub fn new<C>(path: impl Into<String>, controller: C) -> Self
    where
        // The compiler shows the next line to whoever gives it another function.
        C: Controller + 'static, // for example `fn(&Request)`, or `websocket(f)` for a WebSocket's `fn(Socket)`
    {
        let name = controller.log_name();
        Self { path: path.into(), controller: Box::new(controller), name, number: 0 }
    }

    /// What log and statistics call the controller.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Its place among the routes, as they were written.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn controller(&self) -> &dyn Controller {
        &*self.controller
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("path", &self.path).field("controller", &self.name).finish()
    }
}

/// All routes of a server.
#[derive(Debug)]
pub(crate) struct Router {
    /// The more specific pattern first.
    routes: Vec<(Pattern, Route)>,
}

impl Router {
    /// # Errors
    ///
    /// A path is wrong, two routes match the same paths, or an endpoint has a setting that cannot work.
    pub(crate) fn new(routes: Vec<Route>, defaults: &Websocket) -> Result<Self, Error> {
        let mut parsed: Vec<(Pattern, Route)> = Vec::with_capacity(routes.len());
        for (number, mut route) in routes.into_iter().enumerate() {
            route.number = number;
            let pattern = Pattern::parse(&route.path)
                .map_err(|reason| Error::Path { path: route.path.clone(), reason })?;
            if let Some((first, _)) = parsed.iter().find(|(other, _)| other.is_like(&pattern)) {
                return Err(Error::Duplicate { first: first.to_string(), second: route.path });
            }
            route
                .controller
                .check(&route.path)
                .map_err(|reason| Error::Path { path: route.path.clone(), reason })?;
            if let Some(endpoint) = route.controller.endpoint(defaults.clone()) {
                let of_the_route = |Unfit { name, reason }| {
                    let reason = format!("of the route {:?} {reason}", route.path);
                    Error::Setting { name, reason }
                };
                endpoint.check().map_err(of_the_route)?;
            }
            parsed.push((pattern, route));
        }
        parsed.sort_by_cached_key(|(pattern, _)| pattern.precedence());
        Ok(Self { routes: parsed })
    }

    /// The routes' paths, in the order in which they were written.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut routes: Vec<_> = self.routes.iter().map(|(_, route)| route).collect();
        routes.sort_by_key(|route| route.number);
        routes.iter().map(|route| route.path.clone()).collect()
    }

    /// The route of a path that is not decoded yet.
    pub(crate) fn find(&self, path: &str) -> Result<(&Route, Parameters), NotFound> {
        if path == "*" {
            // The whole server, which only `OPTIONS` asks (RFC 9112 §3.2.4).
            return Err(NotFound::NoRoute);
        }
        let segments = path::segments(path).ok_or(NotFound::Undecodable)?;
        self.routes
            .iter()
            .find_map(|(pattern, route)| Some((route, pattern.matches(&segments)?)))
            .ok_or(NotFound::NoRoute)
    }
}

/// Why a path has no route.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    Undecodable,
    NoRoute,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::request::Request;
    use crate::http::response::Response;

    struct Nothing;

    #[async_trait::async_trait]
    impl Controller for Nothing {
        async fn handle(&self, _: &Request) -> Result<Response, crate::controller::error::Error> {
            Ok(Response::new())
        }
    }

    fn router(paths: &[&str]) -> Result<Router, Error> {
        let routes = paths.iter().map(|path| Route::new(*path, Nothing)).collect();
        Router::new(routes, &Websocket::new())
    }

    #[test]
    fn the_more_particular_route_wins_in_any_order() {
        let router = router(&["/*all", "/chat/:room", "/chat/lobby", "/chat/*rest"]).unwrap();
        for (path, expected) in [
            ("/chat/lobby", "/chat/lobby"),
            ("/chat/blue", "/chat/:room"),
            ("/chat/a/b", "/chat/*rest"),
            ("/other", "/*all"),
            ("/", "/*all"),
        ] {
            assert_eq!(router.find(path).unwrap().0.path, expected, "{path}");
        }
    }

    #[test]
    fn a_start_with_wrong_routes_names_them() {
        let alike = router(&["/a/:x", "/a/:y"]).unwrap_err().to_string();
        assert!(alike.contains("/a/:x") && alike.contains("/a/:y"), "{alike}");
        let wrong = router(&["chat"]).unwrap_err().to_string();
        assert!(wrong.contains("\"chat\" has to begin with `/`"), "{wrong}");
    }

    #[test]
    fn a_path_without_route_says_why() {
        let router = router(&["/a"]).unwrap();
        assert_eq!(router.find("/b").unwrap_err(), NotFound::NoRoute);
        assert_eq!(router.find("/%zz").unwrap_err(), NotFound::Undecodable);
        assert_eq!(router.find("*").unwrap_err(), NotFound::NoRoute);
    }
}
