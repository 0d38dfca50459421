//! Whether ports are free, asked before anything is started.
//! Must not know what will listen on them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use super::LocalError;

/// Checks that every port can be listened on at 127.0.0.1; each comes with who needs it.
///
/// # Errors
/// [`LocalError::PortTaken`] for the first that is in use, [`LocalError::Io`] for one that is not allowed.
pub fn check_free(needed: &[(u16, String)]) -> Result<(), LocalError> {
    for (port, needed_by) in needed {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, *port)) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::AddrInUse => {
                return Err(LocalError::PortTaken { port: *port, needed_by: needed_by.clone() });
            }
            Err(e) => return Err(LocalError::io("listen on", format!("127.0.0.1:{port}"))(e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_who_needs_it_and_the_flag() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = check_free(&[(port, "the primary of shard1".into())]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("port {port} is already in use; the primary of shard1 needs it")
        );
        assert!(error.remedy().unwrap().contains("--port-base"));
        drop(taken);
        check_free(&[(port, "x".into())]).unwrap();
    }
}
