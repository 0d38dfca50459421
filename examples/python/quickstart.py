"""pgherd from Python, with psycopg 3: `python quickstart.py` while `pgherd demo` runs.

Another place to connect to: DATABASE_URL=postgres://user:password@host:port/database.
"""

import os

import psycopg

DEMO = "postgres://app:app@127.0.0.1:6432/app"
EMAIL = "quickstart-python@example.com"


def main() -> None:
    users = [f"quickstart-python-{n}" for n in range(1, 7)]
    with psycopg.connect(os.environ.get("DATABASE_URL", DEMO), autocommit=True) as client:
        insert_users(client, users)
        order_in_a_transaction(client, users[0])
        read_by_join(client, users[0])
        read_all_shards(client)
        see_a_refusal(client)
        clean_up(client, users)


def insert_users(client: psycopg.Connection, users: list[str]) -> None:
    """One prepared statement for users of several shards. partition_key is left out: pgherd fills it in."""
    sql = "INSERT INTO users (user_id, name, email) VALUES (%s, %s, %s) RETURNING partition_key"
    for user in users:
        (partition,) = client.execute(sql, (user, "Ada", EMAIL), prepare=True).fetchone()
        print(f"inserted {user} into partition {partition}")


def order_in_a_transaction(client: psycopg.Connection, user: str) -> None:
    """All statements of a transaction belong to one shard: here to that of one user."""
    with client.transaction():
        for order, amount in (("first", "9.99"), ("second", "12.50")):
            client.execute(
                "INSERT INTO orders (user_id, order_id, amount) VALUES (%s, %s, %s)", (user, order, amount)
            )
        updated = client.execute("UPDATE users SET name = 'Ada, a customer' WHERE user_id = %s", (user,))
    print(f"committed 2 orders, {updated.rowcount} user renamed")


def read_by_join(client: psycopg.Connection, user: str) -> None:
    """Both tables are sharded by user_id, so a join on it stays on one shard."""
    sql = """SELECT name, order_id, amount FROM orders JOIN users USING (user_id)
             WHERE user_id = %s ORDER BY order_id"""
    for name, order, amount in client.execute(sql, (user,)):
        print(f"{name}: {order} order, {amount}")


def read_all_shards(client: psycopg.Connection) -> None:
    """Without a key every shard is asked, and their rows come in any order."""
    found = client.execute("SELECT user_id FROM users WHERE email = %s", (EMAIL,)).fetchall()
    print("found on all shards:", ", ".join(sorted(user for (user,) in found)))


def see_a_refusal(client: psycopg.Connection) -> None:
    """What pgherd cannot answer exactly it refuses, with a hint. The client can go on."""
    try:
        rows = client.execute("SELECT * FROM users ORDER BY name LIMIT 10").fetchall()
        print(f"answered with {len(rows)} rows")
    except psycopg.errors.FeatureNotSupported as refusal:
        print(f"refused with {refusal.sqlstate}: {refusal.diag.message_primary}")
        print(f"hint: {refusal.diag.message_hint}")


def clean_up(client: psycopg.Connection, users: list[str]) -> None:
    for user in users:
        client.execute("DELETE FROM orders WHERE user_id = %s", (user,))
        client.execute("DELETE FROM users WHERE user_id = %s", (user,))


if __name__ == "__main__":
    main()
