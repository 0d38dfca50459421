//! Databases that come and go under a `"*"` entry: made, copied, renamed and dropped through the proxy itself.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, failure, rows};

const ENTRY: &str = "[[database]]\nname = \"app\"";

/// Any database of the one server, by a user who may make them.
async fn any() -> Front {
    let front = Front::plain(0, Changes::default()).await;
    front.herd.primary(0).sql("alter role app createdb").await;
    let port = front.herd.shards[0].primary.port;
    let any = format!(
        "[[database]]\nname = \"*\"\ncontrol = {{ user = \"postgres\", password = \"postgres\" }}\n[[database.shard]]\n\
         name = \"only\"\nservers = [{{ host = \"127.0.0.1\", port = {port} }}]\n{ENTRY}"
    );
    front.reconfigure(ENTRY, &any);
    front.admin().await.batch_execute("RELOAD").await.unwrap();
    front
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_can_be_used_as_soon_as_it_is_made() {
    let front = any().await;
    let client = front.connect().await;
    for n in 0..8 {
        if n % 4 == 0 {
            // Whoever comes too early is told at once, and the name is not spoilt by it.
            let url = format!("host=127.0.0.1 port={} user=app password=app dbname=new_{n}", front.port);
            let early = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.err().unwrap();
            let early = early.as_db_error().unwrap_or_else(|| panic!("{early:?}"));
            assert_eq!((early.severity(), early.code().code()), ("FATAL", "3D000"));
            assert_eq!(early.message(), format!("database \"new_{n}\" does not exist"));
        }
        client.batch_execute(&format!("create database new_{n}")).await.unwrap();
        let inside = front.connect_as("app", &format!("new_{n}")).await;
        assert_eq!(rows(&inside, "select current_database()").await, [format!("new_{n}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_the_pool_are_in_nobodys_way() {
    let front = any().await;
    let client = front.connect().await;
    let used = async |name: &str| {
        let inside = front.connect_as("app", name).await;
        inside.batch_execute("create table if not exists t (i int); insert into t values (1)").await.unwrap();
        rows(&inside, "select count(*) from t").await
    };
    client.batch_execute("create database one").await.unwrap();
    assert_eq!(used("one").await, ["1"]);
    client.batch_execute("create database \"Copy\" template one").await.unwrap();
    assert_eq!(used("Copy").await, ["2"]);
    assert_eq!(used("one").await, ["2"]);
    client.batch_execute("alter database one rename to two").await.unwrap();
    assert_eq!(used("two").await, ["3"]);
    // In the extended protocol, and made again with the same name.
    client.execute("drop database two", &[]).await.unwrap();
    client.batch_execute("drop database \"Copy\"").await.unwrap();
    client.batch_execute("create database two").await.unwrap();
    assert_eq!(used("two").await, ["1"]);
    let inside = front.connect_as("app", "template1").await;
    assert_eq!(rows(&inside, "select 1").await, ["1"]);
    drop(inside);
    client.batch_execute("create database three").await.unwrap();
    // A client is in the way, as it would be on the server itself, and stays.
    let inside = front.connect_as("app", "two").await;
    assert_eq!(rows(&inside, "select count(*) from t").await, ["1"]);
    assert_eq!(failure(&client, "drop database two").await.0, "55006");
    assert_eq!(rows(&inside, "select count(*) from t").await, ["1"]);
}
