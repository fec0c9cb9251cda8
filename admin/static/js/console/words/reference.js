// Words of the page «reference». key: [English, 简体中文]

/** @type {Record<string, [string, string]>} */
export const WORDS = {
  reference_lead: ["Everything this console does goes through the API below. Send an API key as bearer token; make one on the page «My account».", "控制台的全部功能都通过以下 API 完成。请以 API 密钥作为 Bearer 令牌发送；可在“我的账户”页面创建密钥。"],
  reference_document: ["OpenAPI document", "OpenAPI 文档"],
  reference_search: ["Search operations", "搜索接口"],
  reference_none: ["No operation has these words.", "没有匹配的接口。"],
  reference_parameters: ["Parameters", "参数"],
  reference_body: ["Body", "请求体"],
  reference_answers: ["Answers", "响应"],
  reference_example: ["Example", "示例"],
  reference_field: ["Field", "字段"],
  reference_type: ["Type", "类型"],
  reference_meaning: ["Meaning", "含义"],
  reference_where: ["In", "位置"],
  reference_required: ["required", "必填"],
  reference_open: ["needs no login", "无需登录"],
  reference_code: ["Status", "状态码"],
  reference_copy: ["Copy", "复制"],
  reference_copied: ["Copied.", "已复制。"],
};
