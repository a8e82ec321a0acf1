"""Draws the studio's rows: pure, and the same for one seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lifeboat.demo import words

SPAN_DAYS = 150
_IMAGE_WEIGHT = 1.7
_DRAFT_WEIGHT = 0.4
_SMALLEST_FILE_BYTES = 256


@dataclass(frozen=True)
class PlannedAsset:
    """A file that is to be written."""

    id: int
    kind: str
    path: str
    size_bytes: int
    created_at: datetime


@dataclass(frozen=True)
class PlannedCharacter:
    """A character, whose portrait has an asset of its own."""

    id: int
    project_id: int
    name: str
    part: str
    backstory: str
    voice: str
    traits: dict[str, Any]
    asset_id: int
    created_at: datetime


@dataclass(frozen=True)
class PlannedSegment:
    """A segment with its draft, or its final video once it is approved."""

    id: int
    project_id: int
    character_id: int
    scene_type: str
    title: str
    prompt: str
    status: str
    duration_seconds: float
    asset_id: int
    reviewed_by: int | None
    reviewed_at: datetime | None
    created_at: datetime


@dataclass(frozen=True)
class StudioPlan:
    """All that the size of a studio decides."""

    characters: list[PlannedCharacter]
    segments: list[PlannedSegment]
    assets: list[PlannedAsset]


def plan_studio(*, characters: int, segments: int, assets_bytes: int, seed: int, now: datetime) -> StudioPlan:
    """A studio with that many characters and approved segments, a tenth more in other states, and that many bytes.

    `now` is the newest moment in it.
    """
    source = random.Random(seed)  # noqa: S311 - content, not secrets
    people = [_character(source, number, now) for number in range(1, characters + 1)]
    statuses = ["approved"] * segments + _unfinished(segments)
    source.shuffle(statuses)
    shots = [_segment(source, number, status, people, now) for number, status in enumerate(statuses, 1)]
    return StudioPlan(people, shots, _assets(source, people, shots, assets_bytes))


def draw_segment_text(source: random.Random, character_name: str) -> tuple[str, str]:
    """A segment's title and prompt."""
    action, place, light = source.choice(words.ACTIONS), source.choice(words.PLACES), source.choice(words.LIGHTS)
    first_name = character_name.partition(" ")[0]
    return f"{first_name} {action}", f"{character_name} {action} {place}, {light}, 35 mm, shallow focus"


def video_path(project_id: int, segment_id: int, *, draft: bool) -> str:
    """Where a segment's video lies below the assets folder."""
    return f"{'drafts' if draft else 'videos'}/{words.PROJECTS[project_id - 1][0]}/segment-{segment_id:06d}.mp4"


def workflow_definition(name: str, number: int) -> dict[str, Any]:
    """A workflow as the platform's editor stores it: a graph of nodes with their settings."""
    steps = ("load_character", "compose_prompt", "render", "interpolate", "upscale", "grade", "encode")
    nodes = {
        str(place): {
            "type": step,
            "inputs": {"from": str(place - 1)} if place > 1 else {},
            "settings": {"seed_mode": "fixed", "steps": 20 + 2 * number, "guidance": 6.5, "denoise": 0.35}
            if step == "render"
            else {"strength": round(0.2 * place, 1)},
        }
        for place, step in enumerate(steps, 1)
    }
    return {"name": name, "engine": "diffusion-video", "resolution": [1920, 1080], "fps": 24, "nodes": nodes}


def template_definition(name: str, scene_types: Sequence[str]) -> dict[str, Any]:
    """A project template: acts, their scenes and the rules for review."""
    acts = [
        {"title": title, "scenes": [scene_types[(start + step) % len(scene_types)] for step in range(4)]}
        for start, title in enumerate(("Opening", "Complication", "Resolution"))
    ]
    return {"name": name, "acts": acts, "review": {"approvals": 1, "who": ["director"]}, "aspect_ratio": "16:9"}


def _character(source: random.Random, number: int, now: datetime) -> PlannedCharacter:
    first = words.FIRST_NAMES[(number - 1) % len(words.FIRST_NAMES)]
    last = words.LAST_NAMES[(number - 1) // len(words.FIRST_NAMES) % len(words.LAST_NAMES)]
    generation = (number - 1) // (len(words.FIRST_NAMES) * len(words.LAST_NAMES))
    traits = {"age": source.randint(8, 80), "traits": source.sample(words.TRAITS, 3), "wardrobe": source.randint(1, 9)}
    return PlannedCharacter(
        id=number,
        project_id=(number - 1) % len(words.PROJECTS) + 1,
        name=f"{first} {last}" + (f" {generation + 1}" if generation else ""),
        part=source.choice(words.PARTS),
        backstory=f"{first} comes from {source.choice(words.ORIGINS)}, wants to {source.choice(words.WISHES)}"
        f" and {source.choice(words.FLAWS)}.",
        voice=source.choice(words.VOICES),
        traits=traits,
        asset_id=number,
        created_at=now - timedelta(days=SPAN_DAYS, minutes=source.randint(0, 20_000)),
    )


def _unfinished(segments: int) -> list[str]:
    count = max(4, segments // 10)
    return [("in_review", "draft", "draft", "rejected")[number % 4] for number in range(count)]


def _segment(
    source: random.Random,
    number: int,
    status: str,
    characters: Sequence[PlannedCharacter],
    now: datetime,
) -> PlannedSegment:
    character = source.choice(characters)
    scene = source.choice(words.SCENE_TYPES)
    title, prompt = draw_segment_text(source, character.name)
    created_at = now - timedelta(seconds=source.uniform(2, SPAN_DAYS * 24) * 3600)
    reviewed = status in {"approved", "rejected"}
    return PlannedSegment(
        id=number,
        project_id=character.project_id,
        character_id=character.id,
        scene_type=scene[0],
        title=title,
        prompt=prompt,
        status=status,
        duration_seconds=round(scene[4] * source.uniform(0.6, 1.6), 1),
        asset_id=len(characters) + number,
        reviewed_by=source.randint(5, 7) if reviewed else None,
        reviewed_at=created_at + (now - created_at) * source.uniform(0.01, 0.5) if reviewed else None,
        created_at=created_at,
    )


def _assets(
    source: random.Random,
    characters: Sequence[PlannedCharacter],
    segments: Sequence[PlannedSegment],
    assets_bytes: int,
) -> list[PlannedAsset]:
    drawn = [*_images(source, characters), *_videos(source, segments)]
    scale = assets_bytes / sum(weight for *_, weight in drawn)
    return [
        PlannedAsset(identity, kind, path, max(_SMALLEST_FILE_BYTES, int(weight * scale) + 1), created_at)
        for identity, kind, path, created_at, weight in drawn
    ]


_Drawn = tuple[int, str, str, datetime, float]


def _images(source: random.Random, characters: Sequence[PlannedCharacter]) -> Iterator[_Drawn]:
    for person in characters:
        slug = person.name.lower().replace(" ", "-")
        path = f"characters/{words.PROJECTS[person.project_id - 1][0]}/{person.id:04d}-{slug}.png"
        yield person.asset_id, "source_image", path, person.created_at, _IMAGE_WEIGHT * source.uniform(0.7, 1.3)


def _videos(source: random.Random, segments: Sequence[PlannedSegment]) -> Iterator[_Drawn]:
    for segment in segments:
        draft = segment.status != "approved"
        weight = segment.duration_seconds / 6 * source.uniform(0.8, 1.2) * (_DRAFT_WEIGHT if draft else 1)
        path = video_path(segment.project_id, segment.id, draft=draft)
        yield segment.asset_id, "draft" if draft else "final_video", path, segment.created_at, weight
