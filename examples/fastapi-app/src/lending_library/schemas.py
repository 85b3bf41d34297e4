"""What requests and responses look like."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

Id = Annotated[int, Field(ge=1, le=9_223_372_036_854_775_807)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]


class AuthorIn(BaseModel):
    name: Name


class BookIn(BaseModel):
    title: Title
    author_id: Id
    copies: int = Field(1, ge=1, le=10_000)


class MemberIn(BaseModel):
    name: Name
    email: Email
    max_loans: int = Field(5, ge=0, le=1_000)


class LoanIn(BaseModel):
    book_id: Id
    member_id: Id


class TransferIn(BaseModel):
    member_id: Id


class Out(BaseModel):
    """Base of what is read from the attributes of stored objects."""

    model_config = ConfigDict(from_attributes=True)


class AuthorOut(Out):
    id: int
    name: str


class BookOut(Out):
    id: int
    title: str
    author: AuthorOut
    copies: int
    available: int


class BookPage(Out):
    total: int
    items: list[BookOut]


class LoanOut(Out):
    id: int
    book_id: int
    member_id: int
    lent_at: AwareDatetime
    due_at: AwareDatetime
    returned_at: AwareDatetime | None


class LoanWithBook(LoanOut):
    book: BookOut


class MemberOut(Out):
    id: int
    name: str
    email: str
    max_loans: int


class MemberWithLoans(MemberOut):
    loans: list[LoanWithBook]


class Statistics(Out):
    titles: int
    copies: int
    available: int
    on_loan: int
    members: int
    authors: int


class Pool(Out):
    capacity: int
    in_use: int
    idle: int


class Health(Out):
    status: str
    database: str
    pool: Pool
