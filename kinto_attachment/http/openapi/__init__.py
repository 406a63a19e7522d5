"""The description of the API, for people and for programs that make clients of it.

Each door describes its routes once, as OpenAPI 3.1 path items in its module ``api``. Two documents
are made of these: one of this plugin alone at ``/attachments/__api__``, and Kinto's at
``/__api__``, which is Swagger 2.0.
"""

from pyramid.config import Configurator

from .document import Description


def includeme(config: Configurator) -> None:
    """Serve both documents. The doors add their routes to ``registry.attachment_api``."""
    config.registry.attachment_api = Description()
    # Services read the CORS settings when they are imported: not before Kinto is set up.
    from . import views

    views.install(config)
