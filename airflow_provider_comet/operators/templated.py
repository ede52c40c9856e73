"""The base of all tasks of this package: it remembers their templates, to tell a rendered ``None`` from a meant one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.inputs.rendered import NONE_IN_TEXT, check_rendered

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context


class TemplatedOperator(BaseOperator):
    """A task that refuses a template's ``None`` where it uses a field, and not where Airflow renders it.

    Otherwise a retry could not continue with a prediction that is paid for.
    """

    @functools.cached_property
    def _templates(self) -> dict[str, Any]:
        return {}

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a value, and remember the template of a whole field.

        Airflow calls this method for each field, also of a mapped task, and for what is in it.
        """
        for name in self.template_fields:
            if getattr(self, name, None) is content:
                self._templates.setdefault(name, content)
        return super().render_template(content, context, jinja_env, seen_oids)

    def rendered(self, name: str) -> Any:
        """Return a field for use; the log has a warning if ``None`` was rendered into a longer text.

        :raises InvalidInputError: the field, or a text in it, has rendered to ``None``.
        """
        value = getattr(self, name)
        if paths := check_rendered(self.template_of(name), value, name):
            self.log.warning("%s: %s", excerpt(", ".join(paths)), NONE_IN_TEXT)
        return value

    def template_of(self, name: str) -> Any:
        """Return what a field was before it was rendered; ``None`` if it was not."""
        return self._templates.get(name)
