"""The `mocha-pipe web` command."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from mocha_pipe.pipeline.cli import options


def web(
    student: options.StudentFolder = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Objects that the page begins with [default: ROOT/profile.safetensors, if it is there]."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")] = 8321,
    save: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Leave the page in this folder, for any server of files, and serve nothing. Only a profile that "
            "--profile names goes with it.",
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    root: options.Root = Path("work"),
) -> None:
    """Open a page on which you teach and find objects with a camera or photos, which never leave the browser."""
    from mocha_pipe.pipeline.personal.personalize import student_folder
    from mocha_pipe.pipeline.web.profiles import learner_of, profile_for
    from mocha_pipe.pipeline.web.serving import open_server
    from mocha_pipe.pipeline.web.site import build_site, save_site
    from mocha_pipe.student.environment import own_folder

    folder = student_folder(root, student)
    objects = profile_for(folder, profile, None if save else root)
    site = build_site(folder, objects, own_folder() / "web", learner=learner_of(objects))
    if save:
        save_site(site, save)
        size = sum(path.stat().st_size for path in site.values()) / 2**20
        typer.echo(f"{save}: {len(site)} files, {size:.0f} MiB; put them on any server of files (docs/web.md)")
        return
    server, address = open_server(site, port)
    with server:
        typer.echo(f"{address} shows the page; Ctrl-C ends it")
        if open_page:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended")
