//! What every platform does alike. A platform's own tests call [`whole_suite`] with what makes one.
