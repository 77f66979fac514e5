//! A closure says what it takes.

use rwf::prelude::*;

fn main() {
    let _ = route!("/" => |request| Ok(Response::new().text(request.path())));
    let _ = route!("/" => |_| Ok(Response::new()));
}
