"""The page of a demo, made with Gradio: drop a photograph on it, and see its classes."""

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcn_jax.errors import InputError, OutOfMemory
from fcn_jax.inference.demo.answer import Answer, Segment, answer, draw, forget
from fcn_jax.inference.demo.subject import Subject
from fcn_jax.inference.visualize import list_coloured

if TYPE_CHECKING:
    import gradio

HOUR = 3600  # seconds, after which the server forgets a photograph
OPACITY = 0.5
HINT = "Drop a photograph, paste one, or choose one below. The first photograph of each size takes longer."
# Gradio's check boxes have no colours of their own, so each gets a square before its name.
STYLE = """
#classes label span::before {content: ""; display: inline-block; width: 1em; height: 1em; margin-right: .4em;
  vertical-align: -.12em; border: 1px solid #8888; border-radius: 2px; background: var(--colour)}
#message p {margin: 0; padding: .6em .8em; border-left: 4px solid #d33; background: #d332}
"""
# Gradio has a button that pastes. This does the same when the visitor presses the keys for it.
PASTE = """() => document.addEventListener("paste", event => {
  const field = document.querySelector("#photograph input[type=file]"), files = event.clipboardData.files;
  if (!files.length || !field) return;
  field.files = files;
  field.dispatchEvent(new Event("change", {bubbles: true}));
})"""


def make_page(subject: Subject, segment: Segment, folder: Path) -> "gradio.Blocks":
    """Make the page. The network runs once for a photograph; opacity and classes are drawn anew without it.

    Args:
        subject: what the page is about.
        segment: computes the class of each pixel. It is called for one photograph at a time.
        folder: the folder of the visitors' photographs, in which class maps are written, too.
    """
    import gradio as gr

    with gr.Blocks(title=subject.title, analytics_enabled=False, delete_cache=(HOUR // 4, HOUR)) as page:
        gr.Markdown(f"# {subject.title}\n{subject.description} {HINT}")
        given = gr.State(None, time_to_live=HOUR, delete_callback=forget)
        drawn = gr.State(OPACITY)  # the opacity of the picture that the network's answer brought
        with gr.Row():
            with gr.Column():
                photograph = gr.Image(
                    label="Photograph", type="filepath", sources=["upload", "clipboard"], elem_id="photograph"
                )
                message = gr.HTML(elem_id="message", visible=False)
                if subject.examples:
                    gr.Examples([[str(file)] for file in subject.examples], photograph, label="Photographs to try",
                                api_visibility="private")  # fmt: skip
            with gr.Column():
                picture = gr.Image(
                    label="Classes", interactive=False, elem_id="picture", buttons=["download", "fullscreen"]
                )
                opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the colours", elem_id="opacity")
                classes = gr.CheckboxGroup(label="Classes found, and their share of the pixels", visible=False,
                                           elem_id="classes")  # fmt: skip
                class_map = gr.DownloadButton("Download the class map (PNG)", visible=False, elem_id="class-map")
        colours = gr.HTML()
        results = {
            "given": given, "picture": picture, "classes": classes, "colours": colours, "class_map": class_map,
            "message": message, "drawn": drawn,
        }  # fmt: skip

        def show(file: dict[str, Any] | None, opacity: float, former: Answer | None) -> dict[Any, Any]:
            shown, text = None, ""
            if file is not None:
                try:
                    shown = answer(segment, subject.palette, _require_uploaded(Path(file["path"]), folder), folder)
                    text = " ".join(f"{warning}." for warning in shown.warnings)
                except (InputError, OutOfMemory) as error:
                    text = str(error)
            forget(former)
            described = _describe(gr, subject, shown, opacity, text) | {"drawn": opacity}
            return {results[name]: value for name, value in described.items()}

        def redraw(shown: Answer | None, opacity: float, classes: list[int]) -> Any:
            if shown is None or not shown.folder.exists():  # no photograph, or its hour is over
                return gr.skip()
            try:
                return draw(shown, subject.palette, opacity, classes)
            except FileNotFoundError:  # another photograph has taken its place meanwhile
                return gr.skip()

        def catch_up(shown: Answer | None, opacity: float, classes: list[int], before: float) -> Any:
            """Draw with the opacity that was chosen while the network computed."""
            return gr.skip() if opacity == before else redraw(shown, opacity, classes)

        # Without Gradio's own reading, which answers damaged files with an error of its own.
        answered = photograph.change(
            show,
            [photograph, opacity, given],
            list(results.values()),
            preprocess=False,
            concurrency_limit=1,
            show_progress_on=picture,
            api_visibility="private",
        )
        chosen = [given, opacity, classes]
        answered.then(catch_up, [*chosen, drawn], picture, show_progress="hidden", api_visibility="private")
        for control in (opacity, classes):
            control.input(
                redraw,
                chosen,
                picture,
                trigger_mode="always_last",
                show_progress="hidden",
                api_visibility="private",
            )
        page.load(None, js=PASTE, api_visibility="private")
    return page


def _require_uploaded(photograph: Path, folder: Path) -> Path:
    """Return the path of a photograph, if it is in the folder of the visitors' photographs.

    Raises:
        InputError: it is elsewhere on this machine.
    """
    if not photograph.resolve().is_relative_to(folder.resolve()):
        raise InputError("this photograph was not given to this page; choose it again")
    return photograph


def _describe(gr: Any, subject: Subject, shown: Answer | None, opacity: float, text: str) -> dict[str, Any]:
    """Return the new value of each part of the page."""
    message = gr.HTML(f'<p role="status">{html.escape(text)}</p>', visible=bool(text))
    if shown is None:
        hidden = {"classes": gr.CheckboxGroup(choices=[], value=[], visible=False), "colours": ""}
        return {
            "given": None,
            "picture": None,
            "class_map": gr.DownloadButton(visible=False),
            "message": message,
        } | hidden
    choices = [(f"{subject.class_names[index]} {_format_share(share)}", index) for index, share in shown.shares.items()]
    coloured = list_coloured(subject.palette)  # as in the pictures of `predict`
    chosen = [index for index in shown.shares if index in coloured]
    rules = [
        f"#classes label:nth-of-type({place}) {{--colour: #{bytes(subject.palette[index]).hex()}}}"
        for place, index in enumerate(shown.shares, 1)
    ]
    return {
        "given": shown,
        "picture": draw(shown, subject.palette, opacity, chosen),
        "classes": gr.CheckboxGroup(choices=choices, value=chosen, visible=True),
        "colours": f"<style>{' '.join(rules)}</style>",
        "class_map": gr.DownloadButton(value=shown.file, visible=True),
        "message": message,
    }


def _format_share(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
