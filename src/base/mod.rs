//! What every floor needs: panics that are contained, deadlines, rates, rules for settings, and texts made fit to be shown.

pub(crate) mod buckets;
pub(crate) mod contained;
pub(crate) mod deadline;
pub(crate) mod rate;
pub(crate) mod rule;
pub(crate) mod shown;
