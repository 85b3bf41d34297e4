"""
What can be asked of the library.

A route that writes asks for the unit of work: it is committed before the response is sent, and
rolled back by any exception, HTTPException included. A route that only reads asks for the read
session. Rows are locked in one order everywhere (member, loan, book), so that two requests never
wait for each other.
"""

import csv
import io
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Query, status
from fastapi.responses import StreamingResponse
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import contains_eager, joinedload, selectinload

from lending_library.models import Author, Book, Loan, Member, now
from lending_library.schemas import (
    AuthorIn,
    AuthorOut,
    BookIn,
    BookOut,
    BookPage,
    Health,
    Id,
    LoanIn,
    LoanOut,
    MemberIn,
    MemberOut,
    MemberWithLoans,
    Pool,
    Statistics,
    TransferIn,
)
from moorage import get_database
from moorage_fastapi import DBReadSession, DBStreamSession, DBUnitOfWork

router = APIRouter()

LOAN_PERIOD = timedelta(days=28)

Row = TypeVar("Row", Book, Loan, Member)


@router.post("/authors", status_code=status.HTTP_201_CREATED, response_model=AuthorOut)
async def create_author(data: AuthorIn, unit: DBUnitOfWork) -> Author:
    author = Author(name=data.name)
    unit.session.add(author)
    await unit.session.flush()  # the response needs the id before the commit
    return author


@router.post("/books", status_code=status.HTTP_201_CREATED, response_model=BookOut)
async def create_book(data: BookIn, unit: DBUnitOfWork) -> Book:
    author = await unit.session.get(Author, data.author_id)
    if author is None:
        raise not_found("author", data.author_id)
    book = Book(title=data.title, author=author, copies=data.copies, available=data.copies)
    unit.session.add(book)
    await unit.session.flush()
    return book


@router.get("/books")
async def list_books(
    session: DBReadSession,
    q: Annotated[str | None, Query(max_length=200, description="part of title or author")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> BookPage:
    matching = select(Book).join(Book.author)
    if q:
        matching = matching.where(
            or_(Book.title.icontains(q, autoescape=True), Author.name.icontains(q, autoescape=True))
        )
    total = (await session.scalars(select(func.count()).select_from(matching.subquery()))).one()
    page = (
        matching.options(contains_eager(Book.author))
        .order_by(Book.title, Book.id)
        .limit(limit)
        .offset(offset)
    )
    books = await session.scalars(page)
    return BookPage(total=total, items=[BookOut.model_validate(book) for book in books])


@router.get("/books.csv", response_class=StreamingResponse)
async def export_books(session: DBStreamSession) -> StreamingResponse:
    """Send all books, row by row, by a session that lives as long as the stream."""
    books = await session.stream(
        select(Book.id, Book.title, Author.name).join(Book.author).order_by(Book.id)
    )
    return StreamingResponse(csv_lines(books), media_type="text/csv")


@router.get("/books/{book_id}", response_model=BookOut)
async def get_book(book_id: Id, session: DBReadSession) -> Book:
    book = await session.get(Book, book_id, options=[joinedload(Book.author)])
    if book is None:
        raise not_found("book", book_id)
    return book


@router.post("/members", status_code=status.HTTP_201_CREATED, response_model=MemberOut)
async def create_member(data: MemberIn, unit: DBUnitOfWork) -> Member:
    member = Member(name=data.name, email=data.email, max_loans=data.max_loans)
    unit.session.add(member)
    await unit.session.flush()
    return member


@router.get("/members/{member_id}", response_model=MemberWithLoans)
async def get_member(member_id: Id, session: DBReadSession) -> Member:
    at_home = selectinload(Member.loans.and_(Loan.returned_at.is_(None)))
    loans_with_books = at_home.joinedload(Loan.book).joinedload(Book.author)
    member = await session.get(Member, member_id, options=[loans_with_books])
    if member is None:
        raise not_found("member", member_id)
    return member


@router.post("/loans", status_code=status.HTTP_201_CREATED, response_model=LoanOut)
async def lend(data: LoanIn, unit: DBUnitOfWork) -> Loan:
    """Take a copy from the shelf and write down who has it: both, or neither."""
    member = await locked(unit.session, Member, data.member_id)
    if await books_at_home(unit.session, member) >= member.max_loans:
        raise limit_reached(member)
    book = await locked(unit.session, Book, data.book_id)
    if book.available == 0:
        raise HTTPException(status.HTTP_409_CONFLICT, f"all copies of book {book.id} are lent")
    book.available -= 1
    lent_at = now()
    loan = Loan(book=book, member=member, lent_at=lent_at, due_at=lent_at + LOAN_PERIOD)
    unit.session.add(loan)
    await unit.session.flush()
    return loan


@router.post("/loans/{loan_id}/return", response_model=LoanOut)
async def return_book(loan_id: Id, unit: DBUnitOfWork) -> Loan:
    """Put the copy back and end the loan: both, or neither."""
    loan = await locked_open_loan(unit.session, loan_id)
    book = await locked(unit.session, Book, loan.book_id)
    loan.returned_at = now()
    book.available += 1
    return loan


@router.post("/loans/{loan_id}/transfer", response_model=LoanOut)
async def transfer(loan_id: Id, data: TransferIn, unit: DBUnitOfWork) -> Loan:
    """Hand a loan over; the receiver's limit is checked behind the write, which then never was."""
    receiver = await locked(unit.session, Member, data.member_id)
    loan = await locked_open_loan(unit.session, loan_id)
    loan.member_id = receiver.id
    await unit.session.flush()  # written, for the count to see it
    if await books_at_home(unit.session, receiver) > receiver.max_loans:
        raise limit_reached(receiver)
    return loan


@router.get("/statistics", response_model=Statistics)
async def statistics(session: DBReadSession) -> object:
    """Count everything in one statement, so that all numbers are of one moment."""
    is_open = Loan.returned_at.is_(None)
    numbers = {
        "titles": select(func.count(Book.id)),
        "copies": select(func.coalesce(func.sum(Book.copies), 0)),
        "available": select(func.coalesce(func.sum(Book.available), 0)),
        "on_loan": select(func.count(Loan.id)).where(is_open),
        "members": select(func.count(Member.id)),
        "authors": select(func.count(Author.id)),
    }
    labelled = [query.scalar_subquery().label(name) for name, query in numbers.items()]
    return (await session.execute(select(*labelled))).one()


@router.get("/health")
async def health() -> Health:
    """Ask the database for a sign of life and say how busy this process's pool is."""
    database = get_database()
    await database.ping()
    pool = Pool.model_validate(database.pool_statistics())
    return Health(status="ok", database=database.connector.name, pool=pool)


async def locked(session: AsyncSession, kind: type[Row], key: int) -> Row:
    """Return a row that nobody else can change before this unit has ended."""
    row = await session.get(kind, key, with_for_update=True)
    if row is None:
        raise not_found(kind.__name__.lower(), key)
    return row


async def locked_open_loan(session: AsyncSession, loan_id: int) -> Loan:
    """Return a locked loan whose book is still out."""
    loan = await locked(session, Loan, loan_id)
    if loan.returned_at is not None:
        raise HTTPException(status.HTTP_409_CONFLICT, f"loan {loan_id} has ended")
    return loan


async def books_at_home(session: AsyncSession, member: Member) -> int:
    """Count a member's loans; exact while the member is locked, since others wait."""
    is_open = (Loan.member_id == member.id) & Loan.returned_at.is_(None)
    return (await session.scalars(select(func.count(Loan.id)).where(is_open))).one()


async def csv_lines(rows: AsyncIterable[Sequence[Any]]) -> AsyncIterator[str]:
    """Write rows as a spreadsheet reads them."""
    async for row in rows:
        line = io.StringIO()
        csv.writer(line).writerow(row)
        yield line.getvalue()


def not_found(kind: str, key: int) -> HTTPException:
    return HTTPException(status.HTTP_404_NOT_FOUND, f"there is no {kind} {key}")


def limit_reached(member: Member) -> HTTPException:
    message = f"member {member.id} may have {member.max_loans} books at home"
    return HTTPException(status.HTTP_409_CONFLICT, message)
