"""The application, and what its clients hear when the database says no."""

from fastapi import FastAPI

from lending_library.routes import router
from moorage_fastapi import PROBLEM_RESPONSES, add_problem_handlers, health_router, lifespan

app = FastAPI(title="Lending library", lifespan=lifespan(), responses=PROBLEM_RESPONSES)
app.include_router(router)
app.include_router(health_router())
add_problem_handlers(app)
