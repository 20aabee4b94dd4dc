//! Which node answers for which slot.

use quark_runtime::store::StoreError;
use redis::Value;
use redis::aio::MultiplexedConnection;

use super::dial::Dialer;
use super::keys::Slot;
use super::settings::{Layout, Node};

/// Which node answers for which slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Routes {
    /// Nobody has said yet.
    Unknown,
    /// One for all.
    One(Node),
    /// First slot, last slot and their node, by first slot.
    Slots(Vec<(Slot, Slot, Node)>),
}

impl Routes {
    pub(super) fn node(&self, slot: Slot) -> Option<&Node> {
        match self {
            Self::Unknown => None,
            Self::One(node) => Some(node),
            Self::Slots(ranges) => {
                let after = ranges.partition_point(|(first, ..)| *first <= slot);
                let (_, last, node) = ranges.get(after.checked_sub(1)?)?;
                (slot <= *last).then_some(node)
            }
        }
    }

    pub(super) fn nodes(&self) -> Vec<&Node> {
        let mut nodes = match self {
            Self::Unknown => Vec::new(),
            Self::One(node) => vec![node],
            Self::Slots(ranges) => ranges.iter().map(|(_, _, node)| node).collect(),
        };
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

/// Asks who answers now: a cluster's nodes, those in `known` included, or the sentinels, in no fixed order, until one
/// says.
pub(super) async fn discover(dialer: &Dialer, known: &[Node]) -> Result<Routes, StoreError> {
    let settings = &dialer.settings;
    let mut nodes = settings.nodes().to_vec();
    if let Layout::Cluster(_) = settings.layout {
        nodes.extend_from_slice(known);
    }
    nodes.sort();
    nodes.dedup();
    fastrand::shuffle(&mut nodes);
    let mut failure = None;
    for node in nodes {
        let said = match &settings.layout {
            Layout::Single(node) => return Ok(Routes::One(node.clone())),
            Layout::Cluster(_) => ask_cluster(dialer, &node).await,
            Layout::Sentinel { master, .. } => ask_sentinel(dialer, &node, master).await,
        };
        match said {
            Ok(routes) => return Ok(routes),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| dialer.errors.unavailable("no node is known")))
}

async fn ask(
    dialer: &Dialer,
    mut connection: MultiplexedConnection,
    question: &[&str],
) -> Result<Value, StoreError> {
    let mut command = redis::cmd(question[0]);
    command.arg(&question[1..]);
    match connection.send_packed_command(&command).await {
        Ok(Value::ServerError(error)) => Err(dialer.errors.server(&error)),
        Ok(value) => Ok(value),
        Err(error) => Err(dialer.errors.unavailable(&error.to_string())),
    }
}

async fn ask_cluster(dialer: &Dialer, node: &Node) -> Result<Routes, StoreError> {
    let connection = dialer.dial_plain(node, std::time::Duration::ZERO).await?;
    let slots = ask(dialer, connection, &["CLUSTER", "SLOTS"]).await?;
    let routes = read_slots(&slots, &node.host);
    let routes = routes.ok_or_else(|| dialer.errors.unexpected("CLUSTER SLOTS of another shape"))?;
    match routes.nodes().is_empty() {
        true => Err(dialer.errors.unavailable("the cluster has no slots yet")),
        false => Ok(routes),
    }
}

async fn ask_sentinel(dialer: &Dialer, sentinel: &Node, master: &str) -> Result<Routes, StoreError> {
    let connection = dialer.dial_sentinel(sentinel).await?;
    match ask(dialer, connection, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master]).await? {
        Value::Nil => Err(dialer.errors.unavailable(&format!("{sentinel} knows no master {master}"))),
        Value::Array(parts) => {
            let node = read_node(&parts, &sentinel.host);
            let node = node.ok_or_else(|| dialer.errors.unexpected("an address of another shape"))?;
            // Right after a failover some sentinels still name the old one; then the others are asked.
            let connection = dialer.dial_plain(&node, std::time::Duration::ZERO).await?;
            dialer.check_role(ask(dialer, connection, &["ROLE"]).await.unwrap_or_default())?;
            Ok(Routes::One(node))
        }
        _ => Err(dialer.errors.unexpected("an address of another shape")),
    }
}

/// Reads the answer to `CLUSTER SLOTS`: first slot, last slot, the master's address, and the replicas.
fn read_slots(value: &Value, asked: &str) -> Option<Routes> {
    let Value::Array(entries) = value else { return None };
    let mut ranges = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Array(fields) = entry else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = fields.as_slice() else {
            return None;
        };
        let (first, last) = (Slot::try_from(*first).ok()?, Slot::try_from(*last).ok()?);
        ranges.push((first, last, read_node(master, asked)?));
    }
    ranges.sort();
    Some(Routes::Slots(ranges))
}

/// Reads a host and a port. A node that does not know its own host is where it was asked.
fn read_node(parts: &[Value], asked: &str) -> Option<Node> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Nil => Some(String::new()),
        _ => None,
    };
    let [host, port, ..] = parts else { return None };
    let host = Some(text(host)?).filter(|host| !host.is_empty() && host != "?");
    Some(Node { host: host.unwrap_or_else(|| asked.to_owned()), port: text(port)?.parse().ok()? })
}

/// Reads `3999 127.0.0.1:6381`, what follows `MOVED` and `ASK`. An empty host is that of whoever answered.
pub(super) fn read_redirect(details: &str, answered: &str) -> Option<Node> {
    let (_, address) = details.trim().split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { answered } else { host };
    Some(Node { host: host.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Node {
        Node { host: "h".into(), port }
    }

    #[test]
    fn a_slot_is_found_in_its_range() {
        let routes = Routes::Slots(vec![(0, 99, node(1)), (100, 100, node(2)), (200, 16383, node(1))]);
        let found = [0, 99, 100, 101, 199, 200, 16383].map(|slot| routes.node(slot).map(|node| node.port));
        assert_eq!(found, [Some(1), Some(1), Some(2), None, None, Some(1), Some(1)]);
        assert_eq!(routes.nodes(), [&node(1), &node(2)]);
    }

    #[test]
    fn what_a_cluster_says_of_itself_is_read() {
        let text = |text: &str| Value::BulkString(text.into());
        let entry = |first, last, host, port| {
            let master = Value::Array(vec![text(host), Value::Int(port), text("id"), Value::Array(vec![])]);
            let replica = Value::Array(vec![text("r"), Value::Int(9), text("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
        };
        let said = Value::Array(vec![entry(8192, 16383, "b", 7001), entry(0, 8191, "", 7000)]);
        let a = Node { host: "asked".into(), port: 7000 };
        let b = Node { host: "b".into(), port: 7001 };
        let routes = Routes::Slots(vec![(0, 8191, a), (8192, 16383, b.clone())]);
        assert_eq!(read_slots(&said, "asked"), Some(routes));
        assert_eq!(read_slots(&Value::Array(vec![Value::Int(1)]), "asked"), None);
        assert_eq!(read_redirect("3999 b:7001", "asked"), Some(b));
        assert_eq!(read_redirect("3999 :7001", "asked").map(|node| node.host), Some("asked".into()));
        assert_eq!(read_redirect("3999", "asked"), None);
    }
}
