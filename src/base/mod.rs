//! What every floor needs: panics that are contained, deadlines, rules for settings, and texts made fit to be shown.

pub(crate) mod contained;
pub(crate) mod deadline;
pub(crate) mod rule;
pub(crate) mod shown;
