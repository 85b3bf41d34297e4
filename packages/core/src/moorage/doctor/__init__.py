"""
Looking for what is wrong with a project, its settings and its database, before it goes wrong.

``moorage doctor`` prints what :func:`examine` finds. Nothing is changed anywhere.
"""

from moorage.doctor.examination import examine
from moorage.doctor.finding import CODES, Finding, Report

__all__ = ["CODES", "Finding", "Report", "examine"]
