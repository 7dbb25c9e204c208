"""The version an export takes, and the checksum it leaves in its file."""

from app.inference.files.checksum import checksum_of
from tests.app.colour_models import write_cam_model
from training.export.onnx_file import card_of, next_version, read_model, with_card


def test_a_folder_that_a_killed_export_left_is_no_version(tmp_path):
    directory = tmp_path / "cam"
    assert next_version(directory) == 1
    (directory / "1").mkdir(parents=True)
    assert next_version(directory) == 1
    (directory / "1").rmdir()
    write_cam_model(tmp_path, "cam", 3)
    (directory / "4").mkdir()
    (directory / "5" / ".model.onnx.partial").parent.mkdir()
    assert next_version(directory) == 4


def test_a_written_card_states_the_files_checksum(tmp_path):
    path = write_cam_model(tmp_path)
    for _ in range(2):  # anew each time
        model, card = read_model(path)
        path.write_bytes(with_card(model, card.model_copy(update={"seed": card.seed + 1})))
        assert card_of(path).checksum == checksum_of(path.read_bytes())
    assert card_of(path).seed == 2
