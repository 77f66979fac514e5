//! What a setting may be. Settings are checked before a server or an endpoint starts: one that cannot work is an error
//! that names it and its bounds.

use std::fmt::{Debug, Display};
use std::time::Duration;

use crate::base::rate::Rate;

/// A setting that cannot work, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) name: &'static str,
    pub(crate) reason: String,
}

/// Whether a setting keeps to its rule.
pub(crate) type Checked = Result<(), Unfit>;

/// Any duration but zero. [`Duration::MAX`] stands for never.
pub(crate) fn time(name: &'static str, time: Duration) -> Checked {
    rule(name, time, !time.is_zero(), "has to be more than zero")
}

/// A duration from `least` on. [`Duration::MAX`] stands for never.
#[cfg(feature = "redis")]
pub(crate) fn at_least_time(name: &'static str, time: Duration, least: Duration) -> Checked {
    rule(name, time, time >= least, format_args!("has to be at least {least:?}"))
}

/// Any rate that allows something, or none for unlimited.
pub(crate) fn rate(name: &'static str, rate: Option<Rate>) -> Checked {
    let what = "has to be a rate whose count, period and burst are all more than zero";
    rate.map_or(Ok(()), |rate| rule(name, rate, rate.allows_something(), what))
}

/// A count or a size from `least` on. `usize::MAX` is unlimited.
pub(crate) fn at_least(name: &'static str, value: usize, least: usize) -> Checked {
    rule(name, value, value >= least, format_args!("has to be at least {least}"))
}

/// A count or a size within bounds.
pub(crate) fn between(name: &'static str, value: usize, least: usize, most: usize) -> Checked {
    let is_fit = (least..=most).contains(&value);
    rule(name, value, is_fit, format_args!("has to be at least {least} and at most {most}"))
}

/// Who may read, write and execute a file, and nothing else.
pub(crate) fn mode(name: &'static str, mode: u32) -> Checked {
    let is_fit = mode <= 0o777;
    rule(name, format_args!("{mode:#o}"), is_fit, "has to be the mode of a file, at most 0o777")
}

/// `is_fit` has to hold for each of `values`; `what` says in words what that asks of them.
pub(crate) fn all(
    name: &'static str,
    values: &[String],
    is_fit: impl Fn(&str) -> bool,
    what: &str,
) -> Checked {
    values.iter().try_for_each(|value| rule(name, value, is_fit(value), what))
}

fn rule(name: &'static str, value: impl Debug, is_fit: bool, what: impl Display) -> Checked {
    if is_fit { Ok(()) } else { Err(Unfit { name, reason: format!("{what}, and is {value:?}") }) }
}
