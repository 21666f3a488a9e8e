from tests.service.databases import postgresql, url

__all__ = ["postgresql", "url"]
