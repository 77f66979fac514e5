//! What compresses and inflates a connection's messages, where that was agreed on; without the feature `deflate`, what
//! stands in its place, and never exists.

#[cfg(feature = "deflate")]
pub(crate) use crate::websocket::deflater::{Deflation, Method};
#[cfg(feature = "deflate")]
pub(crate) use crate::websocket::extensions::Agreement;
#[cfg(feature = "deflate")]
pub(crate) use crate::websocket::inflater::{Inflating, Inflation};

#[cfg(not(feature = "deflate"))]
pub(crate) use never::{Agreement, Deflation, Inflating, Inflation, Method};

#[cfg(not(feature = "deflate"))]
mod never {
    use crate::websocket::close::Close;
    use crate::websocket::frame::Frame;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Agreement {}

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Method {}

    #[derive(Debug)]
    pub(crate) enum Deflation {}

    #[derive(Debug)]
    pub(crate) enum Inflation {}

    #[derive(Debug)]
    pub(crate) enum Inflating {}

    impl Method {
        pub(crate) fn deflate(self, _: &Frame) -> Option<Frame> {
            match self {}
        }
    }

    impl Deflation {
        pub(crate) fn new(agreement: &Agreement) -> Self {
            match *agreement {}
        }

        pub(crate) fn method(&self) -> Option<Method> {
            match *self {}
        }

        pub(crate) fn is_worth(&self, _: &Frame) -> bool {
            match *self {}
        }

        pub(crate) fn next(&self, _: &Frame) -> Option<Frame> {
            match *self {}
        }
    }

    impl Inflation {
        pub(crate) fn boxed(agreement: &Agreement) -> Box<Self> {
            match *agreement {}
        }

        pub(crate) fn begin(&self) -> Inflating {
            match *self {}
        }

        pub(crate) fn end(&mut self, _: Inflating, _: &mut Vec<u8>, _: usize) -> Result<(), Close> {
            match *self {}
        }
    }

    impl Inflating {
        pub(crate) fn taken(&self) -> usize {
            match *self {}
        }

        pub(crate) fn push(&mut self, _: &[u8], _: &mut Vec<u8>, _: usize) -> Result<(), Close> {
            match *self {}
        }
    }
}
