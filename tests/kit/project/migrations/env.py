from kit_boats import Base

from moorage.migrations import run

run(Base.metadata)
