"""Plain class activation maps.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, https://arxiv.org/abs/1512.04150,
in the fully convolutional form every paper here builds on (PSA, IRN):

    F_c(x, y) = sum_k w_ck f_k(x, y)        `maps`    a 1x1 convolution without bias on the backbone's features f
    logit_c   = mean over (x, y) of F_c      `logits`  (equation 2: averaging and weighting commute)
    CAM_c     = relu(F_c)                    `cams`
"""

from pydantic import Field
from torch import Tensor, nn

from training.backbones import build_backbone
from training.methods.method import Classifier, HeadStart, start_head
from training.methods.method import Options as MethodOptions


class CamClassifier(Classifier):
    """It is a backbone, dropout and a 1x1 convolution."""

    paper = "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, arXiv:1512.04150"

    class Options(MethodOptions):
        dropout: float = Field(
            default=0.0, ge=0, lt=1
        )  # This share of whole feature channels is dropped before the classifier; PSA uses 0.5.
        head_start: HeadStart = "xavier"  # The 1x1 convolution starts as PSA's; IRN and AMR have "default".
        freeze: bool = False  # The first modules and the statistics of all BatchNorm stay; the papers: true.
        bias: bool = False  # The 1x1 convolution has a bias; the papers have none.
        freeze_affine: bool = False  # Weights and biases of all BatchNorm stay; PSA: true, IRN and AMR: false.

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: Options
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride, weights)
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(self.backbone.channels[-1], class_count, 1, bias=options.bias)
        start_head(self.classifier, options.head_start)
        self.backbone.keeps_statistics = options.freeze
        if options.freeze:
            self.backbone.freeze_stem()
        for module in self.backbone.batch_norms() if options.freeze_affine else ():
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`."""
        maps = self.classifier(self.dropout(self.backbone(images)[-1]))
        return maps.mean(dim=(2, 3)), maps.relu()
