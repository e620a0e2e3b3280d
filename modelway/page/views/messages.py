"""The messages of a conversation as articles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from modelway.conversations import TurnRecord
from modelway.page.clean import clean
from modelway.page.draft import Draft, Figures
from modelway.page.html import Content, Html, tag
from modelway.page.markdown import code_block
from modelway.page.texts import Texts
from modelway.page.thread import Entry, Thread
from modelway.page.views.icons import icon
from modelway.page.views.parts import OF_PAGE, attachment_name, measures, pretty, source
from modelway.types import Citation, FilePart, ImagePart, Message, OtherPart, TextPart, ToolCall

_CUT = ("length", "content_filter")
_DOTS = tag("span", tag("i"), tag("i"), tag("i"), class_="dots", aria_hidden="true")


class Writer:
    """Writes messages in the words of one language; what models and people wrote is sanitised."""

    def __init__(
        self, texts: Texts, answers: Callable[[str, str], Html], questions: Callable[[str, str], Html]
    ) -> None:
        """`answers` and `questions` turn Markdown, with a name for its footnotes, into HTML."""
        self._t = texts
        self._answers = answers
        self._questions = questions

    def thread(self, thread: Thread, conversation: str, figures: Mapping[str, Figures]) -> list[Html]:
        """The articles of a path."""
        return [self._entry(entry, conversation, figures) for entry in thread.entries]

    def question(
        self, id: str, message: Message, tools: Content = None, files: str = "", turn: str = ""
    ) -> Html:
        """What somebody asked. `files` is the address at which its pictures are."""
        t = self._t
        noted = message.extra.get(OF_PAGE)
        if isinstance(noted, dict) and noted.get("continues"):
            return self._article(
                id, "continued", t("thread.continued"), tag("p", t("thread.continued")), tools
            )
        shown = tag("div", *self._parts(message, id, files), class_="prose")
        return self._article(id, "user", t("thread.you"), shown, tools, turn)

    def answer(
        self, id: str, message: Message, footer: Content, note: Content = None, turn: str = ""
    ) -> Html:
        """An answer; `note` says why it is cut off."""
        body = [
            self._reasoning(message.reasoning),
            tag("div", self._answers(message.text, id), class_="prose") if message.text else None,
            *self._pictures(message),
            tag("p", message.refusal, class_="refusal") if message.refusal else None,
            *(self.call(call) for call in message.tool_calls),
            self.sources(message.annotations),
            note,
        ]
        return self._article(id, "assistant", self._t("thread.answer"), body, footer, turn)

    def call(self, call: ToolCall) -> Html:
        """A call of a tool that the model asks for."""
        summary = tag("summary", icon("plug"), " ", self._t("thread.calls"), " ", tag("code", call.name))
        return tag("details", summary, clean(code_block(pretty(call.arguments), "json")), class_="aside")

    def sources(self, citations: tuple[Citation, ...]) -> Html | None:
        """What an answer cites."""
        links = [source(citation) for citation in citations]
        shown = [tag("li", link) for link in dict.fromkeys(links) if link]
        if not shown:
            return None
        return tag("section", tag("h3", self._t("thread.sources")), tag("ol", *shown), class_="sources")

    def error(self, code: str, explanation: str, *actions: Content) -> Html:
        """Why there is no answer, or none to the end."""
        shown = tag("p", explanation or self._t("thread.failed"))
        return tag(
            "div", tag("code", code), shown, tag("div", *actions, class_="row"), class_="error", role="group"
        )

    def button(self, action: str, drawing: str, label: str, **attributes: str) -> Html:
        """A button with a drawing."""
        return tag(
            "button",
            icon(drawing),
            type="button",
            class_="ghost",
            title=label,
            aria_label=label,
            data_action=action,
            **attributes,
        )

    def failure(self, code: str, explanation: str) -> Html:
        """In the place of an answer: why there is none."""
        again = tag("button", self._t("thread.retry"), type="button", class_="small", data_action="retry")
        return self._article(
            "failed", "assistant", self._t("thread.answer"), self.error(code, explanation, again), None
        )

    def unanswered(self) -> Html:
        """In the place of an answer that nobody gave."""
        again = tag("button", self._t("thread.retry"), type="button", class_="small", data_action="retry")
        body = tag("div", tag("p", self._t("thread.failed")), again, class_="cut row")
        return self._article("failed", "assistant", self._t("thread.answer"), body, None)

    def draft(self, blocks: Sequence[Html], reasoning: str) -> Html:
        """An answer under way, as the page's script goes on with it."""
        summary = tag("summary", self._t("thread.reasoning"))
        thought = tag(
            "details",
            summary,
            tag("div", reasoning, class_="prose raw"),
            class_="aside",
            hidden=not reasoning,
            data_reasoning=True,
        )
        shown = tag("div", *(tag("div", block) for block in blocks), class_="prose", data_blocks=True)
        return self._article(
            "live", "assistant live", self._t("thread.answer"), [thought, shown, _DOTS], None
        )

    def elsewhere(self, so_far: Message | None) -> Html:
        """An answer under way that another program asked for."""
        shown = tag("div", self._answers(so_far.text, "live"), class_="prose") if so_far else None
        waiting = tag("p", self._t("thread.elsewhere"), class_="hint")
        return self._article(
            "live", "assistant live", self._t("thread.answer"), [shown, _DOTS, waiting], None
        )

    def unkept(self, draft: Draft) -> Html:
        """The end of an answer in a chat that is not kept."""
        if draft.error is not None and not draft.first_s:
            return self.failure(draft.error.code, draft.error.explanation)
        completion = draft.completion
        note = self.error(draft.error.code, draft.error.explanation) if draft.error else None
        if draft.was_stopped:
            note = tag("div", tag("p", self._t("thread.cut")), class_="cut row")
        turn = TurnRecord(
            id="",
            status="done",
            provider=draft.provider,
            model=draft.model,
            parent="",
            tail="",
            messages=(),
            instructions=(),
            answer_id="",
            answer=None,
            finish_reason="",
            usage=completion.usage,
            error_code="",
            error="",
            created_at=draft.began_at,
            finished_at=draft.began_at + draft.total_s,
        )
        told = [tag("span", one) for one in measures(self._t, turn, Figures(draft.first_s, draft.cost))]
        footer = tag(
            "footer",
            self.button("copy", "copy", self._t("thread.copy")),
            tag("p", *told, class_="measures"),
            class_="tools",
        )
        return self.answer("answer", completion.message, footer, note)

    def exported(self, entry: Entry) -> Html:
        """A message without anything to press."""
        if entry.message.role != "assistant":
            return (
                self._result(entry)
                if entry.message.role == "tool"
                else self.question(entry.id, entry.message)
            )
        told = measures(self._t, entry.turn, Figures()) if entry.turn else []
        footer = tag(
            "footer", tag("p", *(tag("span", one) for one in told), class_="measures"), class_="tools"
        )
        return self.answer(entry.id, entry.message, footer)

    def _entry(self, entry: Entry, conversation: str, figures: Mapping[str, Figures]) -> Html:
        files = f"/c/{conversation}/files"
        message, turn = entry.message, entry.turn
        match message.role:
            case "assistant":
                known = figures.get(turn.id, Figures()) if turn else Figures()
                note = None
                if turn is not None and (turn.status == "interrupted" or turn.finish_reason in _CUT):
                    note = self._cut_note(entry)
                return self.answer(
                    entry.id, message, self.footer(entry, known), note, turn.id if turn else ""
                )
            case "tool":
                return self._result(entry)
        tools = tag(
            "footer",
            self._branches(entry),
            self.button("edit", "edit", self._t("thread.edit")),
            self.button("copy", "copy", self._t("thread.copy")),
            class_="tools",
        )
        return self.question(entry.id, message, tools, files, turn.id if turn else "")

    def footer(self, entry: Entry, known: Figures) -> Html:
        """Who answered, how fast, and what can be done with the answer."""
        t, turn = self._t, entry.turn
        told: list[Content] = []
        if turn is not None:
            told = [tag("span", text) for text in measures(t, turn, known)]
        return tag(
            "footer",
            self._branches(entry),
            self.button("copy", "copy", t("thread.copy")),
            self.button("regenerate", "repeat", t("thread.regenerate")),
            tag("p", *told, class_="measures"),
            class_="tools",
        )

    def _branches(self, entry: Entry) -> Html | None:
        count, place = len(entry.siblings), entry.place
        if count < 2:
            return None
        t = self._t
        before = entry.siblings[place - 2] if place > 1 else ""
        after = entry.siblings[place] if place < count else ""
        return tag(
            "span",
            self._branch_button("left", t("thread.previous"), before),
            tag("span", f"{place}/{count}"),
            self._branch_button("right", t("thread.next"), after),
            class_="branches",
        )

    def _branch_button(self, drawing: str, label: str, message: str) -> Html:
        return tag(
            "button",
            icon(drawing),
            type="button",
            class_="ghost",
            title=label,
            aria_label=label,
            data_action="branch",
            data_message=message,
            disabled=not message,
        )

    def _cut_note(self, entry: Entry) -> Html:
        t, turn = self._t, entry.turn
        go_on = tag("button", t("thread.continue"), type="button", class_="small", data_action="continue")
        if turn is not None and turn.error_code:
            return self.error(turn.error_code, turn.error, go_on)
        reason = turn.finish_reason if turn is not None else ""
        said = {"length": "thread.too_long", "content_filter": "thread.filtered"}.get(reason, "thread.cut")
        return tag("div", tag("p", t(said)), go_on, class_="cut row")

    def _result(self, entry: Entry) -> Html:
        message = entry.message
        summary = tag("summary", icon("check"), " ", self._t("thread.result"), " ", tag("code", message.name))
        shown = tag("details", summary, clean(code_block(pretty(message.text), "json")), class_="aside")
        return self._article(entry.id, "tool", self._t("thread.result"), shown, None)

    def _reasoning(self, text: str) -> Html | None:
        if not text:
            return None
        summary = tag("summary", self._t("thread.reasoning"))
        return tag("details", summary, tag("div", self._answers(text, ""), class_="prose"), class_="aside")

    def _parts(self, message: Message, id: str, files: str) -> list[Content]:
        if isinstance(message.content, str):
            return [self._questions(message.content, id)]
        shown: list[Content] = []
        for index, part in enumerate(message.content):
            match part:
                case TextPart():
                    name = attachment_name(part)
                    shown.append(
                        self._attachment(name, part.text) if name else self._questions(part.text, id)
                    )
                case ImagePart():
                    shown.append(self._picture(part, f"{files}/{id}/{index}" if files else ""))
                case FilePart():
                    shown.append(tag("p", icon("attach"), " ", part.name or part.media_type, class_="chip"))
                case OtherPart():
                    shown.append(
                        tag("p", icon("attach"), " ", str(part.value.get("type", "")), class_="chip")
                    )
        return shown

    def _pictures(self, message: Message) -> list[Html]:
        """The pictures of an answer."""
        parts = () if isinstance(message.content, str) else message.content
        return [self._picture(part, "") for part in parts if isinstance(part, ImagePart)]

    def _attachment(self, name: str, text: str) -> Html:
        summary = tag("summary", icon("attach"), " ", name)
        return tag("details", summary, tag("pre", text, tabindex="0"), class_="aside attachment")

    def _picture(self, part: ImagePart, address: str) -> Html:
        label = self._t("thread.picture")
        if not part.url.startswith("data:"):
            return tag(
                "a",
                label,
                href=part.url if part.url.startswith("http") else None,
                target="_blank",
                rel="noopener noreferrer nofollow",
                class_="picture",
            )
        return tag("img", src=address or part.url, alt=label, loading="lazy", class_="attached")

    def _article(
        self, id: str, kind: str, label: str, body: Content, footer: Content, turn: str = ""
    ) -> Html:
        heading = tag("h2", label, class_="unseen")
        return tag(
            "article",
            heading,
            body,
            footer,
            id=id,
            class_=f"message {kind}",
            aria_label=label,
            data_turn=turn or None,
        )
