"""Small programs as XLA prints them: one micro-batch loop, one exchange after it."""


def module(body: str = "", entry: str = "", fused: str = "") -> str:
    """A step of four micro-batches; lines for its loop, its entry and a fused computation."""
    return f"""\
HloModule jit_step, is_scheduled=true, num_partitions=8

%region_0.0 (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}

%fused (p0: bf16[64,32], p1: bf16[32,16]) -> bf16[64,16] {{
  %p0 = bf16[64,32]{{1,0}} parameter(0)
  %p1 = bf16[32,16]{{1,0}} parameter(1)
{fused}
  ROOT %dot.1 = bf16[64,16]{{1,0}} dot(%p0, %p1), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}

%condition (state: (s32[], f32[32,16])) -> pred[] {{
  %state.0 = (s32[], f32[32,16]{{1,0}}) parameter(0)
  ROOT %less = pred[] constant(true)
}}

%body (state: (s32[], f32[32,16])) -> (s32[], f32[32,16]) {{
  %state = (s32[], f32[32,16]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %grad = f32[32,16]{{1,0}} get-tuple-element(%state), index=1
  %x = bf16[64,32]{{1,0}} constant({{...}})
  %w = bf16[32,16]{{1,0}} constant({{...}})
{body}
  %gemm = bf16[64,16]{{1,0}} fusion(%x, %w), kind=kCustom, calls=%fused, metadata={{op_name="jit(step)/h_0/mlp"}}
  ROOT %next = (s32[], f32[32,16]{{1,0}}) tuple(%i, %grad)
}}

ENTRY %main (p: f32[32,16]) -> f32[4,16] {{
  %p = f32[32,16]{{1,0}} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[32,16]{{1,0}}) tuple(%zero, %p)
  %while.1 = (s32[], f32[32,16]{{1,0}}) while(%start), condition=%condition, body=%body, backend_config={{"known_trip_count":{{"n":"4"}},"known_init_step":{{"init":"0","step":"1"}}}}
  %total = f32[32,16]{{1,0}} get-tuple-element(%while.1), index=1
{entry}
  %scatter = ((f32[32,16]{{1,0}}), f32[4,16]{{1,0}}) reduce-scatter-start(%total), channel_id=1, replica_groups=mesh['data'=8,'fsdp'=1] {{'data','fsdp'}}, dimensions={{0}}, to_apply=%region_0.0
  ROOT %scattered = f32[4,16]{{1,0}} reduce-scatter-done(%scatter)
}}
"""  # noqa: E501
