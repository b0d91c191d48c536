"""The fixed words of tables and page in the reader's language; CSV files stay English."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from .cells import Grid, Span

Say = Callable[[str], str]
LANGUAGES = ("en", "zh")

RULE = (
    "d is measured minus claimed, positive is better; the margin is q·s·√(1 + 1/n): s is the "
    "spread of at least 3 repeats with q of Student's t, or a known one (the row is marked n = 1 "
    "or n = 2) with q = 1.645. Reproduced: d ≥ −tolerance + margin. Not reproduced: d < −tolerance "
    "− margin. Inconclusive: in between, or no known s. A false verdict of either kind is at most "
    "5 % likely where s is measured, or the true spread is no more than the known one. "
    "Accuracy needs equal data, protocol, epochs, global batch and precision, as far as the claim "
    "states them; speed and marks also need the claim's hardware, else they are compared only. "
    "Missing is n/a, never a pass."
)

#: Under the first table with a verdict: what its reasoning abbreviates.
LEGEND = (
    "d: measured minus claimed, positive is better; reproduced from −tolerance + margin, not "
    "reproduced under −tolerance − margin; the margin is q·s·√(1 + 1/n), s the spread between runs"
)

ZH: dict[str, str] = {
    "en": "zh-CN",
    # tables
    "Accuracy": "精度",
    "Throughput": "吞吐率",
    "Time mark": "时间标记",
    "Runs in no table above (in progress, failed, or flagged; not judged)": (
        "未列入上表的运行（进行中、失败或有备注；不作判定）"
    ),
    "Inference: accuracy (not judged)": "推理：精度（不作判定）",
    "Inference: time of a batch, from its pixels or its files to its logits": (
        "推理：一个批次从像素或文件到输出的时间"
    ),
    "As published elsewhere (theirs, not measured here)": "其他公开结果（非本地实测）",
    "Logs of other systems": "其他系统的日志",
    "The claims themselves": "公布值自洽性检查",
    "no finished run": "没有已完成的运行",
    "no finished run with a mark": "没有到达时间标记的已完成运行",
    "none": "无",
    # columns
    "Weights": "权重",
    "Predictions": "预测摘要",
    "From": "起点",
    "Batch": "批大小",
    "Batches": "批次数",
    "files": "文件",
    "pixels": "像素",
    "Model": "模型",
    "Data": "数据集",
    "Precision": "计算精度",
    "Epochs": "训练轮数",
    "Cards": "卡数",
    "Device": "设备",
    "top1 %": "top1 精度（%）",
    "top5 %": "top5 精度（%）",
    "n": "重复次数 n",
    "Images": "图像数",
    "Protocol": "评估方式",
    "Claim": "公布值",
    "Verdict": "判定",
    "Flags": "备注",
    "1 card, img/s": "单卡吞吐率（img/s）",
    "N": "N（卡数）",
    "N cards, img/s": "N 卡吞吐率（img/s）",
    "Scaling": "线性度",
    "AMP / FP32": "AMP / FP32 加速比",
    "Data wait": "数据等待占比",
    "Run": "运行",
    "State": "状态",
    "epoch": "轮次",
    "loss": "损失",
    "ce": "交叉熵",
    "top1_acc": "top1 精度",
    "top5_acc": "top5 精度",
    "No.": "编号",
    "Status": "运行状态",
    "Epoch": "轮次",
    "img/s": "吞吐率（img/s）",
    "BN": "BN 统计量",
    "p50, ms": "p50（毫秒）",
    "p95, ms": "p95（毫秒）",
    "p99, ms": "p99（毫秒）",
    "Message": "信息",
    "Beside": "对照模型",
    "Network": "网络",
    "System": "系统",
    "img/s (cards)": "吞吐率 img/s（卡数）",
    "Recipe": "训练配置",
    "Log": "日志文件",
    "Format": "格式",
    "Evals": "评估次数",
    "Final top1 %": "最终 top1 精度（%）",
    "Best top1 %": "最高 top1 精度（%）",
    "Train loss": "训练损失",
    "Of": "统计范围",
    "s/step": "每步耗时（s）",
    "Span, s": "时长（s）",
    "Cannot tell": "无法得知",
    "Compared": "检查项",
    "Result": "结果",
    "Numbers": "数值",
    # verdicts
    "reproduced": "复现",
    "not reproduced": "未复现",
    "inconclusive": "无法判定",
    "n/a": "无数据",
    "different hardware": "硬件不同",
    "consistent": "一致",
    "odd": "存疑",
    "impossible": "不可能",
    # cells
    "compute-bound": "计算受限",
    "input-bound": "输入受限",
    "partly input-bound": "部分输入受限",
    "not stated": "未注明",
    "all cards": "全部卡",
    "of how many cards is not stated": "未注明卡数",
    "as the source scores (assumed shards)": "按来源方式计分（分片方式为假定）",
    "claim": "公布值",
    "verdict": "判定",
    "no claim applies": "无适用的公布值",
    "any cards": "任意卡数",
    "any": "任意",
    "finished": "已完成",
    "failed": "失败",
    "interrupted": "已中断",
    "in progress": "进行中",
    "running": "进行中",
    "not finite": "非有限值",
    "complete": "完整",
    "partial": "未完成",
    "resumed": "断点续训",
    "not steady": "波动过大",
    "evaluation only": "仅有评估",
    "aborted": "已中止",
    "re-exported": "由导出文件读回",
    "overridden": "参数被覆盖",
    "synthetic": "合成数据",
    "world changed": "卡数有变",
    "lines missing": "日志缺行",
    "recipe.yaml changed": "recipe.yaml 被改动",
    "loss is not finite": "损失非有限值",
    "other recipe than here": "配方与此处不同",
    "other claims than here": "公布值与此处不同",
    "data changed": "数据有变",
    "other data": "数据集不同",
    "different data": "重复间数据不同",
    "numbers missing": "编号缺失",
    "rehearsal": "预演",
    "rehearsal (ours)": "预演（自测）",
    "at the mark": "标记时刻",
    # summary
    "run": "次运行",
    "runs": "次运行",
    "of other systems": "次其他系统的运行",
    "; claims: ": "；公布值：",
    "none applies": "无适用",
    # page
    "Report": "报告",
    "proofrun report": "proofrun 报告",
    "Curves": "曲线",
    "Runs": "运行记录",
    "Log lines": "日志行",
    "log lines": "日志行",
    "Reasoning": "判定依据",
    "claimed": "公布值",
    "Show": "显示",
    "command": "命令",
    "commit": "提交",
    "device": "设备",
    "seed": "随机种子",
    "packages": "软件包",
    "data fingerprint": "数据指纹",
    "config": "配置",
    "log": "日志",
    "Sort by": "排序",
    "the order of the report": "报告顺序",
    "No claim applies to these runs, so there is no verdict.": (
        "这些运行没有适用的公布值，不作判定。"
    ),
    "Each number above links here; ↩ leads back to it.": (
        "上文每个数值都链接到此处；点击 ↩ 返回。"
    ),
    "lines, the first and the last:": "行，首行与末行：",
    "this line cannot be read any more": "该行已无法读取",
    "The rest of these files is used.": "这些文件的其余内容仍被采用。",
    "rejected line": "条无效日志行",
    "rejected lines": "条无效日志行",
    "(the rest is used)": "（其余内容仍被采用）",
    "more in rejected_lines.csv": "条见 rejected_lines.csv",
    # drawings
    "Loss (dashed: plain cross entropy)": "损失（虚线：交叉熵）",
    "Accuracy, % (dashed: top5)": "精度（%，虚线：top5）",
    "top1, % over training time": "top1（%）随训练时间的变化",
    "Learning rate": "学习率",
    "Throughput, img/s": "吞吐率（img/s）",
    "Data wait, % of the time": "数据等待时间占比（%）",
    "Throughput over cards, img/s (dotted: ideal)": "多卡吞吐率（img/s，点线：线性加速）",
    "mark": "时间标记",
    "at mark": "标记时刻",
    "cards": "卡数",
    "how to read it": "读法",
    LEGEND: (
        "d：实测值减公布值，正值为优；d ≥ −容差 + 裕量为复现，d < −容差 − 裕量为未复现；"
        "裕量为 q·s·√(1 + 1/n)，s 为各次运行之间的标准差"
    ),
    RULE: (
        "d 为实测值减公布值，正值为优；裕量为 q·s·√(1 + 1/n)：s 为至少 3 次重复的标准差，"
        "q 取 Student t 分布；或 s 为已知值（该行标注 n = 1 或 n = 2），q = 1.645。"
        "复现：d ≥ −容差 + 裕量。未复现：d < −容差 − 裕量。"
        "无法判定：介于两者之间，或 s 未知。"
        "在 s 为实测值或真实标准差不大于已知值时，两类误判的概率均不超过 5 %。"
        "精度判定要求数据集、评估方式、训练轮数、全局 batch size 和计算精度与公布条件一致"
        "（以公布者写明的为限）；吞吐率和时间标记还要求硬件相同，否则仅作对比。"
        "缺失的数据记为“无数据”，绝不算作复现。"
    ),
}
#: Fixed words around a number or a name: whole texts only.
_PATTERNS_ZH = (
    (r"at epoch ([\d.]+)", r"第 \1 轮"),
    (r"at ([\d.e+]+ s)", r"\1 时"),
    (r"([\d.,]+) of ([\d.,]+)", r"\1 / \2"),
    (r"(\d+) of (\d+) epochs", r"\1 / \2 轮"),
    (r"last evaluation: epoch ([\d.]+) of (\d+)", r"最后一次评估在第 \1 / \2 轮"),
    (
        r"evaluation of epoch ([\d.e+]+) but training to (\d+)",
        r"评估的是第 \1 轮，训练只到第 \2 轮",
    ),
    (r"([\d,]+) of ([\d,]+) images", r"\2 张图像中的 \1 张"),
    (r"(\d+) steps", r"\1 步"),
    (r"(\d+) steps on (\d+)", r"\2 卡 \1 步"),
    (r"([\d.]+(?:×| %)) on (\d+)", r"\1（\2 卡）"),
    (r"(\d+) bit-equal repeats?", r"\1 次逐位相同的重复"),
    (r"(\w+) loader", r"\1 加载器"),
    (r"(\d+) cards?", r"\1 卡"),
    (r"(\d+) cards? ([≥≤=] .+)", r"\1 卡 \2"),
    (r"scaling on (\d+)", r"\1 卡线性度"),
    (r"scaling on (\d+) ([≥≤=] .+)", r"\1 卡线性度 \2"),
)


def speaker(language: str) -> Say:
    """A function from an English word to the reader's; what has no translation stays English."""
    return _zh if language == "zh" else str


def _zh(text: str) -> str:
    if text in ZH:
        return ZH[text]
    for pattern, said in _PATTERNS_ZH:
        if re.fullmatch(pattern, text):
            return re.sub(pattern, said, text)
    return text


def spoken(grid: Grid, say: Say) -> Grid:
    """The table with its fixed words in the reader's language."""
    rows = [
        replace(row, cells=tuple(tuple(_span(span, say) for span in cell) for cell in row.cells))
        for row in grid.rows
    ]
    columns = tuple(replace(column, title=say(column.title)) for column in grid.columns)
    title, empty = say(grid.title), say(grid.empty)
    reasons = [(say(what), v, say(why)) if why == LEGEND else (what, v, why)
               for what, v, why in grid.reasons]  # fmt: skip
    return replace(grid, title=title, columns=columns, rows=rows, empty=empty, reasons=reasons)


def _span(span: Span, say: Say) -> Span:
    """A verdict may follow the name of its claim; flags are words between commas."""
    if span.verdict:
        name, colon, verdict = span.text.rpartition(": ")
        said = f"{say(name)}{colon}{verdict.replace(span.verdict, say(span.verdict))}"
    else:
        said = say(span.text)
        if said == span.text:
            said = ", ".join(say(word) for word in span.text.split(", "))
    return replace(span, text=said)


def summary(text: str, say: Say) -> str:
    """`3 runs; claims: 1 reproduced, 2 n/a`, with the words that `say` knows."""
    said = re.sub(r"(?<=\d )[a-z/][a-z/ -]*", lambda words: say(words[0]), text)
    for words in ("; claims: ", "none applies"):
        said = said.replace(words, say(words))
    return said if say("en") == "en" else said.replace(", ", "，")
