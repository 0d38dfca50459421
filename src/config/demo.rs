//! The shipped `proxy.toml` as a template for demos on other ports.
//! Must not know how the servers are started.

/// The first port of the shipped `proxy.toml`'s servers; the six servers follow one another from here.
pub const DEMO_PORT_BASE: u16 = 5432;

/// How many servers the shipped `proxy.toml` has.
pub const DEMO_SERVERS: u16 = 6;

/// The proxy's port is this much above the base.
const PROXY_ABOVE_BASE: u16 = 1000;

const SHIPPED: &str = include_str!("../../proxy.toml");

/// The shipped `proxy.toml` with its servers on `base` to `base + 5` and the proxy on `base + 1000`.
///
/// `None` if those are not all ports: `base` must be 1 to 64535.
#[must_use]
pub fn demo_text(base: u16) -> Option<String> {
    let shift = |port: u16| base.checked_add(port.checked_sub(DEMO_PORT_BASE)?).filter(|_| base > 0);
    let mut text = String::with_capacity(SHIPPED.len());
    for line in SHIPPED.split_inclusive('\n') {
        match port_in(line) {
            Some((before, port, after)) => {
                let shifted = shift(port)?;
                text.push_str(&format!("{before}{shifted}{after}"));
            }
            None => text.push_str(&in_proxy_line(line, shift(DEMO_PORT_BASE + PROXY_ABOVE_BASE)?)),
        }
    }
    Some(text)
}

/// A server's line, cut round its port.
fn port_in(line: &str) -> Option<(&str, u16, &str)> {
    let at = line.find("port = ").filter(|_| line.trim_start().starts_with("{ host"))? + "port = ".len();
    let (before, rest) = line.split_at(at);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    Some((before, digits.parse().ok()?, after))
}

/// The proxy's own port, in its address and in the psql line beside it.
fn in_proxy_line(line: &str, port: u16) -> String {
    if line.starts_with("listen") { line.replace("6432", &port.to_string()) } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_base_gives_the_shipped_file_itself() {
        assert_eq!(demo_text(DEMO_PORT_BASE).as_deref(), Some(SHIPPED));
    }

    #[test]
    fn only_the_servers_and_the_proxy_move() {
        let moved = demo_text(15432).unwrap();
        let changed: Vec<(&str, &str)> =
            SHIPPED.lines().zip(moved.lines()).filter(|(old, new)| old != new).collect();
        assert_eq!(changed.len(), usize::from(DEMO_SERVERS) + 1);
        assert!(changed[0].1.contains("[\"127.0.0.1:16432\"]") && changed[0].1.contains("-p 16432 "));
        for ((_, line), port) in changed[1..].iter().zip(15432..) {
            assert!(line.contains(&format!("port = {port},")), "{line}");
        }
    }

    #[test]
    fn ports_that_do_not_exist_are_refused() {
        assert!(demo_text(64535).is_some());
        for base in [0, 64536, u16::MAX] {
            assert_eq!(demo_text(base), None, "{base}");
        }
    }
}
