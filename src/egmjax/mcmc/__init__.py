"""Reference and refinement kernels."""

from ._cluster import SwendsenWang, SwendsenWangInfo, SwendsenWangState, cluster_labels, swendsen_wang

__all__ = ["SwendsenWang", "SwendsenWangInfo", "SwendsenWangState", "cluster_labels", "swendsen_wang"]
