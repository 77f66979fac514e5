//! What `route!` is given: where that is a function of a `Socket` as it is, the compiler says what to write.

use crate::controller::function::Endpoint;
use crate::controller::socket::Socket;

/// The expression of a route. Its `controller` is the method below where it is a function of a [`Socket`], and else that of
/// [`Otherwise`], since a type's own methods come first.
#[derive(Debug)]
pub struct Given<C>(C);

impl<C> Given<C> {
    /// The expression.
    pub fn new(expression: C) -> Self {
        Self(expression)
    }
}

impl<F, R> Given<F>
where
    F: Fn(Socket) -> R,
{
    /// Never to be called: nothing is [`Wrapped`].
    pub fn controller(self) -> Endpoint
    where
        F: Wrapped,
    {
        self.0.wrapped()
    }
}

/// Nothing is this.
#[diagnostic::on_unimplemented(
    message = "a function of a `Socket` is no controller by itself",
    label = "write `websocket(…)` around this",
    note = "a WebSocket endpoint that is a function is `websocket(f)`, with an \
            `fn(Socket) -> Result<(), Error>`",
    note = "a closure that answers HTTP says what it takes: `|_: &Request|`"
)]
pub trait Wrapped {
    /// Never to be called.
    fn wrapped(self) -> Endpoint;
}

/// What is no function of a [`Socket`] stays as it is.
pub trait Otherwise<C> {
    /// The expression.
    fn controller(self) -> C;
}

impl<C> Otherwise<C> for Given<C> {
    fn controller(self) -> C {
        self.0
    }
}
