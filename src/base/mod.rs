//! What every floor needs: deadlines, settings that hold to their rules, and words that are fit to be shown.

pub(crate) mod contained;
pub(crate) mod deadline;
pub(crate) mod rule;
pub(crate) mod shown;
