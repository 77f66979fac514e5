//! Why a WebSocket is closed: close codes and reasons (RFC 6455 §7.4).

use std::fmt;

/// A close code: a number, of which some have a name (RFC 6455 §7.4.1 and the IANA registry).
///
/// 3000 to 3999 are registered by libraries, 4000 to 4999 are free to use.
///
/// ```
/// use rwf::websocket::CloseCode;
///
/// assert_eq!(u16::from(CloseCode::GOING_AWAY), 1001);
/// assert_eq!(CloseCode::from(1000), CloseCode::NORMAL);
/// assert!(CloseCode::from(4000).is_sendable() && !CloseCode::ABNORMAL.is_sendable());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server goes down, or the page was left.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: data of a kind that the endpoint does not take.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1005: the close frame carried no code. Never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: the connection ended without a close frame. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: against the endpoint's policy.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message over the limit.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: the client needs an extension that the server does not have.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: the server failed, for example a handler that panicked.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: overload, for example a receiver that is too slow.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got an invalid answer.
    pub const BAD_GATEWAY: Self = Self(1014);

    /// Whether a close frame may carry the code (RFC 6455 §7.4.2).
    #[must_use]
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl PartialEq<u16> for CloseCode {
    fn eq(&self, code: &u16) -> bool {
        self.0 == *code
    }
}

/// The number.
impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A close code with its reason, as a close frame carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: CloseCode,
    pub(crate) reason: String,
}

/// A control frame holds 125 bytes, two of them the code (RFC 6455 §5.5).
const MAX_REASON: usize = 123;

impl Close {
    /// A close for reasons of our own. The reason is cut to what a close frame holds.
    pub(crate) fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        let end =
            (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or(0));
        Self { code, reason }
    }

    /// A close that a program asks for.
    pub(crate) fn checked(code: CloseCode, reason: &str) -> Result<Self, InvalidClose> {
        if !code.is_sendable() {
            return Err(InvalidClose::Code(code));
        }
        if reason.len() > MAX_REASON {
            return Err(InvalidClose::Reason(reason.len()));
        }
        Ok(Self { code, reason: reason.to_owned() })
    }
}

/// A close that no close frame can carry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidClose {
    /// The code is not one that may be sent (RFC 6455 §7.4.2).
    Code(CloseCode),
    /// The reason has this many bytes; 123 are the limit.
    Reason(usize),
}

impl fmt::Display for InvalidClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(
                f,
                "close code {code} may not be sent: use 1000 to 1003, 1007 to 1014 or 3000 to 4999"
            ),
            Self::Reason(length) => {
                write!(f, "a close reason holds at most {MAX_REASON} bytes, this one has {length}")
            }
        }
    }
}

impl std::error::Error for InvalidClose {}

/// How a WebSocket was closed, as it is known when it is over for the program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The code of whichever side closed first; [`CloseCode::NO_STATUS`] when the client gave none, and
    /// [`CloseCode::ABNORMAL`] when the connection broke.
    pub code: CloseCode,
    /// The reason that came with the code, or for people, why the connection broke.
    pub reason: String,
    /// What brought the end about.
    pub cause: Cause,
    /// Messages that were sent to the client and that it has not taken. Where the connection broke they are lost; where
    /// it was closed they still go out, for up to [`close_timeout`](crate::controller::Websocket::close_timeout).
    pub unsent: usize,
    /// Messages that were dropped for newer ones, where [`Overflow::DropOldest`](crate::controller::Overflow) says so.
    pub dropped: u64,
}

/// What brought the end of a WebSocket about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The client closed it.
    Client,
    /// The program did: it closed the WebSocket, or its function or handler returned, failed or panicked; or there are
    /// as many of the session as the settings allow.
    Program,
    /// The server shuts down.
    Shutdown,
    /// The client did not take messages as fast as they were sent, until no more of them could wait.
    SlowReceiver,
    /// The client did not answer a ping in time.
    Silent,
    /// The client took nothing for the write timeout.
    Stalled,
    /// The client broke the protocol or a limit.
    Violation,
    /// The connection ended without a close frame.
    Lost,
}

impl Cause {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 8] = [
        Self::Client,
        Self::Program,
        Self::Shutdown,
        Self::SlowReceiver,
        Self::Silent,
        Self::Stalled,
        Self::Violation,
        Self::Lost,
    ];

    /// Who began: what is lost is counted as the client's doing.
    pub(crate) fn by(self) -> &'static str {
        match self {
            Self::Client | Self::Lost => "client",
            _ => "server",
        }
    }
}

/// One word, as it stands in the log and in metrics: `slow_receiver`.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Program => "program",
            Self::Shutdown => "shutdown",
            Self::SlowReceiver => "slow_receiver",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::Violation => "violation",
            Self::Lost => "lost",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_the_conversion() {
        for number in 0..=u16::MAX {
            assert_eq!(u16::from(CloseCode::from(number)), number);
        }
    }

    #[test]
    fn codes_that_only_describe_are_not_sendable() {
        for number in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            assert!(!CloseCode::from(number).is_sendable(), "{number}");
        }
        for number in [1000, 1003, 1007, 1014, 3000, 4999] {
            assert!(CloseCode::from(number).is_sendable(), "{number}");
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let close = Close::new(CloseCode::NORMAL, "ä".repeat(100));
        assert_eq!(close.reason.len(), 122);
        assert_eq!(
            Close::checked(CloseCode::NORMAL, &"a".repeat(124)),
            Err(InvalidClose::Reason(124))
        );
        assert!(Close::checked(CloseCode::NO_STATUS, "").is_err());
    }
}
