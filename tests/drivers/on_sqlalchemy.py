"""What an application does with SQLAlchemy on psycopg 3, each step's outcome printed. DATABASE_URL says where.

Must not know whether a proxy is there: the test compares what it prints with and without.
"""

import os

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects.postgresql import insert

engine = sa.create_engine(os.environ["DATABASE_URL"].replace("postgres://", "postgresql+psycopg://"), pool_size=2)


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "sa_authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(40), unique=True)
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "sa_books"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str] = orm.mapped_column(sa.Text)
    facts: orm.Mapped[dict] = orm.mapped_column(sa.JSON, default=dict)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("sa_authors.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)

with orm.Session(engine) as session:
    ada = Author(name="Ada", books=[Book(title=f"Notes {n}", facts={"n": n}) for n in range(3)])
    session.add(ada)
    session.commit()
    print("unit of work:", ada.id, [book.id for book in ada.books])
    try:
        with session.begin_nested():
            session.add(Author(name="Ada"))
            session.flush()
    except sa.exc.IntegrityError as error:
        print("savepoint:", error.orig.sqlstate, error.orig.diag.constraint_name)
    session.add(Author(name="Bob"))
    session.commit()
    print("after it:", session.scalars(sa.select(Author.name).order_by(Author.id)).all())
    session.execute(sa.delete(Book).where(Book.title == "Notes 2"))
    session.rollback()
    loaded = session.scalars(sa.select(Author).options(orm.selectinload(Author.books)).order_by(Author.id)).all()
    print("eager:", [(author.name, [book.facts for book in author.books]) for author in loaded])

with engine.begin() as connection:
    # Without RETURNING these are pipelines of the driver.
    for _ in range(8):
        many = [{"name": f"author {n}"} for n in range(50)]
        connection.execute(insert(Author).on_conflict_do_nothing(), many)
    print("many:", connection.scalar(sa.select(sa.func.count()).select_from(Author)))
    returned = connection.scalars(sa.insert(Book).returning(Book.id, sort_by_parameter_order=True),
                                  [{"title": f"t{n}", "author_id": 1} for n in range(300)])
    print("returned:", sum(returned))
    upsert = insert(Author).values(name="Ada").on_conflict_do_update(index_elements=["name"], set_={"name": "Ada L."})
    print("upsert:", connection.scalar(upsert.returning(Author.name)))

with engine.connect().execution_options(stream_results=True, yield_per=40) as connection:
    print("streamed:", sum(len(part) for part in connection.scalars(sa.select(Book.title)).partitions()))

with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    print("autocommit:", connection.scalar(sa.text("select count(*) from sa_books where author_id = :id"), {"id": 1}))

for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"):
    with engine.connect().execution_options(isolation_level=level) as connection:
        print("isolation:", connection.scalar(sa.text("show transaction_isolation")))

look = sa.inspect(engine)
print("reflected:", [(column["name"], str(column["type"])) for column in look.get_columns("sa_books")])
print("keys:", look.get_foreign_keys("sa_books")[0]["referred_table"], look.get_unique_constraints("sa_authors"))
Base.metadata.drop_all(engine)
print("dropped:", [name for name in sa.inspect(engine).get_table_names() if name.startswith("sa_")])
