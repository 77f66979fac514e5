//! Functions that are no endpoints: what they take or return is another thing.

use rwf::prelude::*;

fn socket(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(message)?;
    }
    Ok(())
}

fn by_value(request: Request) -> Result<Response, Error> {
    Ok(Response::new().text(request.path()))
}

fn no_result(request: &Request) -> Response {
    Response::new().text(request.path())
}

fn other_error(request: &Request) -> Result<Response, std::io::Error> {
    Ok(Response::new().text(request.path()))
}

async fn asynchronous(request: &Request) -> Result<Response, Error> {
    Ok(Response::new().text(request.path()))
}

fn no_result_and_socket(_: Socket) {}

fn main() {
    let _ = route!("/a" => socket);
    let _ = route!("/b" => by_value);
    let _ = route!("/c" => no_result);
    let _ = route!("/d" => other_error);
    let _ = route!("/e" => asynchronous);
    let _ = route!("/f" => no_result_and_socket);
}
